"""Data: one file a dataset, one value for all of them, one split for every model.

`load` finds a dataset by name; a `Dataset` is uint8 images with labels, provenance and hashes; a `Loader` serves
batches by position. A new dataset is a new file with a function of its own name that returns a `Dataset`.
"""

from sfumato.data._load import load
from sfumato.data.checking import check
from sfumato.data.dataset import DataError, Dataset, overlap, sigma_data
from sfumato.data.loader import Loader

__all__ = ["DataError", "Dataset", "Loader", "check", "load", "overlap", "sigma_data"]
