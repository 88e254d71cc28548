"""A gallery larger than a machine: each reader holds a share of its segments, and the shares answer as one.

share.py         which segments a share has, and the position that all of them have to be at
one_share.py     one share that is asked; in this process, or in a Ray actor
ray_shard.py     shares in actors, started again when they are lost
sharded_view.py  asks all of them and merges exactly
"""
