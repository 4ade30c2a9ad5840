"""Contamination: which documents hold the questions that a model will be judged on."""
