"""The terminal of a job: it shows the job's own lines, and what libraries print goes to a log file (docs/logs.md)."""
