"""Where bytes come from, and go to: a folder, a URL, a bucket, the Hugging Face Hub."""
