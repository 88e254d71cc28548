"""The refilter job: other thresholds over captions that are made already."""
