"""Features of a document: words, vectors, languages, scores of quality."""
