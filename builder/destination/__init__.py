"""Where a build or an import writes its shard directory: a folder, or a bucket of S3."""
