"""Evaluation of models: targets, questions, scores, n-grams, and comparisons of scores."""
