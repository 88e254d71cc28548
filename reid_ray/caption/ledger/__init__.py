"""The write-ahead log of a captioning run: content keys, what is missing, poison rows, publishing."""
