"""Mixtures in, scores out: the predictors and how they are stacked."""
