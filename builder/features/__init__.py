"""Features of a document: its words, vector, language, and scores of quality."""
