"""What a gallery holds in files that never change: segments, where an id lies in one, and posting lists for filters."""
