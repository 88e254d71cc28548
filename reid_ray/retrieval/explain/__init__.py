"""Explanation of a score: which words of a question, and which places of an item's picture, carry the cosine between them."""
