"""What a run served: the ledger, its replay from the weights log, and the documents of a batch."""
