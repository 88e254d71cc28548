"""The transfer job: trained on A, tested on B, as one table."""
