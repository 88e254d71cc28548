"""What the one writer of a gallery does to it: the end of its log, the step to the next generation, merging, and another encoder."""
