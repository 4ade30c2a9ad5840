"""What lies in a shard directory: manifest, clusters, mixture, catalogue, documents, tokenizer."""
