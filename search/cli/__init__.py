"""The commands of ``climb`` that search for mixtures, or train, score or compare models; also the demo."""
