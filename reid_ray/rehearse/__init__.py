"""Rehearsals: any configuration as it is but for its size, from the published layout to the number at the end."""
