"""Selection: which documents stay, and why all others are dropped."""
