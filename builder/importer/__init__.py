"""Corpora that are clustered already, to token shards."""
