"""Shards and mixtures as data sets of the Hugging Face Hub."""
