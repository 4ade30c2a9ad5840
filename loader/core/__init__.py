"""Code that all packages share: errors, files, working folders, the console; none reads shards."""
