"""The plan job: hours and GPU-hours of a captioning run."""
