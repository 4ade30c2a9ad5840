"""Corpus: read sources, write their documents as partitions, and report what was left out."""
