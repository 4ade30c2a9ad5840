"""Tokens, shards and the catalogue of documents."""
