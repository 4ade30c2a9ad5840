"""Formats of a shard directory: manifest, clusters, mixture, catalogue, documents, tokenizer."""
