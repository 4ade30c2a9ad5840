"""The commands of ``climb`` that search mixtures, train, score and compare models; the demo."""
