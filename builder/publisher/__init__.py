"""Publish shards and mixtures as data sets on the Hugging Face Hub."""
