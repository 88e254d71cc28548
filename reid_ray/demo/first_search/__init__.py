"""A folder of crops, searched: embedded, indexed and served by one command in one process."""
