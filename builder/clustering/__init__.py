"""From documents to clusters: k-means, Ward linkage, cells, and the map of micro-clusters."""
