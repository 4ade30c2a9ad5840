"""MDS, the format of the shards: the index, and bytes of documents."""
