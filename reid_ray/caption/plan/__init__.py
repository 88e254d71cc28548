"""The plan job: capacity planning, hours and GPU-hours of a captioning run."""
