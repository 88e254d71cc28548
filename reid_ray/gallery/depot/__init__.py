"""Where a gallery lies: a folder, or an object store of which each machine keeps a copy of the segments that it opened.

interface.py     the interface, and which of the two an address means
journal.py       the log's frames, and group commit at its end
added_items.py   items as frames
dead_rows.py     which rows of a segment live
folder_depot.py  a folder: files, fsync, a lock beside it
store_depot.py   an object store: conditional puts, a lease, one object for each group commit
segment_copies.py  where a machine keeps its copies of a store's segments
"""
