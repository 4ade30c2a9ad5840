"""Audit: the ledger of what a run served, its check against the weights log, and explanations."""
