"""The embed job, and the reader of what it wrote: tables of unit vectors."""
