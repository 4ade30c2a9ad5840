"""Import: convert corpora that are already clustered into token shards."""
