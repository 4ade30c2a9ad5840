"""Work on a whole shard directory: pull, verify, regroup; and doctor, for the machine."""
