"""Find the mixture that is best for given targets."""
