"""The report job: one HTML page about a captioning run."""
