"""Contamination: find documents that contain questions of the tests on which a model is scored."""
