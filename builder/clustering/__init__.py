"""Documents to clusters: k-means, Ward's merging, and the map of small clusters to large."""
