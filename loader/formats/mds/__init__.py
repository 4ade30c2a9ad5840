"""MDS, the format of shards (that of mosaicml-streaming): the index, and documents as bytes."""
