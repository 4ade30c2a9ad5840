"""Work on a whole shard directory: pull, verify; and doctor, for the machine."""
