"""Where bytes come from: a folder, a URL, the Hugging Face Hub, with retries."""
