"""Weights over time: single changes, ramps, the log of all changes, and sources of new changes."""
