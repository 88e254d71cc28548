"""The transfer job: a cross-dataset table, trained on A and tested on B."""
