"""Reading: from shards to tensors. The shard cache, packing, open shards, and the collator."""
