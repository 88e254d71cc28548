"""The export job: the tables written in the layout of a published data set."""
