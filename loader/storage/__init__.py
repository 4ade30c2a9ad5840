"""Storage: reads and writes files in a folder, at a URL, in a bucket or on the Hub."""
