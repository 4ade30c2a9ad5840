"""One model on one mixture: settings, model, ranks, the training loop."""
