"""Settings of builds that take seconds."""

SMALL_BUILD = {
    "clusters": 3,
    "micro_clusters": 9,
    "dims": 16,
    "vocab_size": 400,
    "no_prune": True,
    "near_duplicates": None,
}
"""A build that keeps every document."""
ON_A_CLUSTER = {
    "clusters": 4,
    "micro_clusters": 20,
    "dims": 16,
    "vocab_size": 1000,
    "holdout": 0.05,
    "min_cluster_score": {},
    "min_document_score": {},
}
"""A build that Ray or SLURM runs, and a local one after it."""
