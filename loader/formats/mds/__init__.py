"""MDS, the format of the shards: the index, and how documents are stored as bytes."""
