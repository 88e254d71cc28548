"""Editing of people: segments, a bank of references, pictures edited to wear them, and their new captions (Diverse Person)."""
