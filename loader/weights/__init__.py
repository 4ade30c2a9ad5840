"""Weights over time: one change, its interpolation, the log of all, and who asks for more."""
