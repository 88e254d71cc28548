"""IRRA in plain torch, for comparison."""
