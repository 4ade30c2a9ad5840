"""Sampling: which rows come next. Quotas of clusters, lanes, planned batches, limits of epochs."""
