"""Writers of tokens, of shards and of the catalogue of documents."""
