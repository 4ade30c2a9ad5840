"""The commands of ``climb`` that search for mixtures, train, score and compare, and the demo."""
