"""Selection: decides which documents stay, and why all others are dropped."""
