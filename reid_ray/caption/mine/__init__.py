"""The mine job: template mining, sentence templates out of captions."""
