"""Which row comes next: rows of each cluster in a batch, lanes, whole steps, limits of epochs."""
