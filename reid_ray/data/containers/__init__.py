"""Files that data sets come in (tar, LMDB, MATLAB, JSON), read so that a damaged one is an error with a name. Below formats/."""
