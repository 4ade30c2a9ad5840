"""Ask for mixtures, tell scores, get the answer. It knows no model."""
