"""Contamination: documents that hold questions of the tests for a model."""
