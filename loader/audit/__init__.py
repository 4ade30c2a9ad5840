"""Audit: the ledger of a run, the check of a ledger, and the documents that are in a batch."""
