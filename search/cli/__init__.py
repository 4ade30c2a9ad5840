"""The commands that search, train and fit, and the demo."""
