"""Formats in which a run leaves: one file writes one format, found by its name.

The file ``NAME.py`` holds a function ``NAME(run, folder, use) -> list of lines``: it writes `run` with the average
`use` into an empty `folder` and says in a few lines what was written and how it is used. What a format cannot hold is
refused with the reason.
"""
