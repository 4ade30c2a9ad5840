"""Shards and mixtures for other trainers: Parquet, JSON lines, Megatron."""
