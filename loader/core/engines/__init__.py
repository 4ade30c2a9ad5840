"""Engines: run tasks at the same time, on this machine, on a Ray cluster, or in SLURM jobs."""
