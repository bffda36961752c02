"""Tables of a run's images: one file, one table, a function of the file's name that returns a `Table`."""
