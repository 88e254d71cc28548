"""Verification of edits: a network of its own reads what a person wears, and says whether an edited picture shows what was wanted."""
