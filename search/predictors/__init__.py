"""Predictors: mixtures in, scores out; and how several are stacked."""
