"""What a run served: the ledger, a replay from the weights log, and the documents of a batch."""
