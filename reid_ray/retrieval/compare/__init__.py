"""The compare job: a paired bootstrap between two evaluations of the same queries."""
