"""Axis: labels for images that have none, or in place of their own; one file = one rule (`labels._labelling`)."""
