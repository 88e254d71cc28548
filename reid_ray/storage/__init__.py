"""Storage: atomic outputs with lock and manifest, Parquet tables, atomic and durable files, provenance.

output.py       a job's output: counts, facts, manifest, reuse
place.py        the folder's life: lock, staging, commit, what dead runs left (lock.py, listing.py, rename.py)
provenance.py   what a result was made from, by content
tables.py       Parquet tables and (table_files.py) their files
file_systems.py  a folder to read, on a local disk or at an address; store_errors.py  classification of an object store's errors
files.py        single files to write; regular_files.py  to read        environment.py  hardware, versions, commit
"""

from reid_ray.storage.environment import environment
from reid_ray.storage.files import read_object, sha256_of, write_bytes, write_durably, write_json
from reid_ray.storage.output import Counts, JobOutput
from reid_ray.storage.provenance import MANIFEST, read_manifest, run_of
from reid_ray.storage.table_files import parquet_files
from reid_ray.storage.tables import TableWriter, iter_table, read_table

__all__ = [
    "MANIFEST",
    "Counts",
    "JobOutput",
    "TableWriter",
    "environment",
    "iter_table",
    "parquet_files",
    "read_manifest",
    "read_object",
    "read_table",
    "run_of",
    "sha256_of",
    "write_bytes",
    "write_durably",
    "write_json",
]
