"""Audit: the ledger of what a run served, its check, and the documents from which a batch came."""
