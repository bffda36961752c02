"""Feature extractors, one file each: a function of the file's name takes (C, H, W) and returns an `Extractor`."""
