"""Which texts are usable captions and which rewrites are faithful: rules, attributes, embeddings, diversity."""
