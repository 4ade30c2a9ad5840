"""What all packages share: errors, files, working folders, the console. It knows no shards."""
