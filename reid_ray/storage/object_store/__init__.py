"""Outputs at object stores (s3://, gs://, az://): conditional puts, a lease, and one pointer object that names the result.

object_client.py  objects below an address, written with conditions; lost answers are told from other people's writes
pointer.py        the pointer of an output, and where a reader of its address really reads
lease.py          the output's lock and fence: the pointer names its owner
store_place.py    an output's life at a store, as place.py is at a folder
"""
