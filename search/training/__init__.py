"""Training of one model on one mixture: settings, models, ranks, and the training loop."""
