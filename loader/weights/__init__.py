"""Weights over time: one change, its interpolation, the log of all, who may ask for more."""
