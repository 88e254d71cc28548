"""The demo: every job in its order, on one Ray, with one report."""
