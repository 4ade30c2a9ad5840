"""Engines: run tasks in processes of this machine, on a Ray cluster, or in SLURM jobs."""
