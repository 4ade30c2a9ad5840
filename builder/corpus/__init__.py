"""Sources to documents on disk, partition by partition, and the report of what was left out."""
