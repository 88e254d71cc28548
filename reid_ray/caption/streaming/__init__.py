"""Continuous feeding: the calls of an actor share one engine, whose queue stays full, and their rows become durable in groups."""
