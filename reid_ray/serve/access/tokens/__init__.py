"""Tokens of a service: the file that holds their digests, what a running service knows of it, and the command that changes it."""
