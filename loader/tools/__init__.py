"""Tools for a whole shard directory (pull, verify, regroup) and for the machine (doctor)."""
