"""A gallery in bulk: segments that tasks seal on any node, and the step in which the one writer takes them all."""
