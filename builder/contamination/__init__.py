"""Contamination: find documents that contain questions of the tests a model will be scored on."""
