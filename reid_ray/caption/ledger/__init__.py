"""The ledger, the write-ahead log of a captioning run: content-addressed keys, incremental work, poison-row quarantine, publishing."""
