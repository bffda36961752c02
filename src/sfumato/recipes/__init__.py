"""Known-good recipes: one documented function per published or own configuration, a file per family."""

SEVERAL_PER_FILE = True
