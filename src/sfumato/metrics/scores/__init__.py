"""The metrics: what is measured of generated images, each a function that returns a `Metric`."""

SEVERAL_PER_FILE = True
