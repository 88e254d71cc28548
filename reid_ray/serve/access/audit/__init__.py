"""The audit log: who asked what of the service, for which purpose, and what was changed, as a chain of hashes."""
