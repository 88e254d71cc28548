"""The plan_edits job: capacity planning, hours and GPU-hours of an edit run."""
