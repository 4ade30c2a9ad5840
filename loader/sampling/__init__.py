"""Sampling: choose which rows come next. Quotas, lanes, the planner, and limits of epochs."""
