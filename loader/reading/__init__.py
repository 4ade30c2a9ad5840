"""Reading: turn shards into tensors. The shard cache, packing, open shards, and the collator."""
