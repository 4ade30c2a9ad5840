"""Turn a corpus into clusters and token shards."""
