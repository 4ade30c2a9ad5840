"""Settings of a build that takes seconds, and keeps every document."""

SMALL_BUILD = {
    "clusters": 3,
    "micro_clusters": 9,
    "dims": 16,
    "vocab_size": 400,
    "no_prune": True,
    "near_duplicates": None,
}
