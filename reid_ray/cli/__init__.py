"""The command line: `reid-ray`, and what it shares with jobs/*.py. Imports no engine; a job's modules come with the job."""
