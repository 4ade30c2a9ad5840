"""Export of shards and mixtures for other trainers: Parquet, JSON lines, Megatron, MosaicML."""
