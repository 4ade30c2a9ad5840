"""Optimiser: proposes mixtures, is told their scores and chooses the answer; it trains nothing."""
