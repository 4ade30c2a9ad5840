"""Core: code that all packages share, such as errors, files and the console; none reads shards."""
