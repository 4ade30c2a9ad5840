"""What is computed of a document: words, vectors, scores of quality."""
