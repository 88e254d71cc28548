"""The mine job: sentence templates out of captions."""
