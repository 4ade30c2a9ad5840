"""Commands of ``climb``: search for mixtures; train, score and compare models; run the demo."""
