"""Layouts of no one data set: folders of pictures, Parquet tables, WebDataset shards."""
