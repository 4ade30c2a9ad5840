"""Ask for mixtures, tell scores, get the answer; it knows no models."""
