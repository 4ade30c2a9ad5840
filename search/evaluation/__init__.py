"""What a model is scored on: targets, questions, n-grams, and comparisons of scores."""
