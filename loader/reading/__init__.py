"""Rows out of shards, into tensors: the cache, packing, open shards, and the collator."""
