"""Clusters as labels: what guidance by class needs, for images without classes.

k-means divides the training images into K clusters by their features. With centres c_1, ..., c_K it minimises

    sum_i  min_k |f(x_i) - c_k|^2

and the label of any image, held out or not, is its nearest centre. A model that is told these labels can be guided,
drawn a row a cluster and scored by cluster as one that is told classes. The images are sorted by their hashes first, so
the result depends on what they are and on the seed, and not on files or their order.

References:
    Hu, Zhang, Asano, Burghouts, Snoek. Self-Guided Diffusion Models. 2022. https://arxiv.org/abs/2210.06462
    Adaloglou, Kaiser, Michels, Kollmann. Rethinking Cluster-Conditioned Diffusion Models. 2024.
        https://arxiv.org/abs/2403.00570
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from sfumato.core.bounds import Bounds
from sfumato.core.optional import optional
from sfumato.data.dataset import DataError
from sfumato.data.hashing import hash_images
from sfumato.labels._labelling import Labelling
from sfumato.metrics.features import extractor, features_of

Several = Annotated[int, Bounds(2, 10_000)]
Tries = Annotated[int, Bounds(1, 1_000)]
Word = Annotated[int, Bounds(0, 2**32 - 1)]


def clusters(
    shape: tuple[int, int, int], *, count: Several = 10, features: str = "pixels", tries: Tries = 4, seed: Word = 0
) -> Labelling:
    """Clusters of k-means on features of the training images; other images take the nearest centre.

    Arguments:
        shape: Shape (C, H, W) of the images.
        count: Number of clusters K, at most the number of different images.
        features: Extractor whose features are compared (`sfumato list extractors`); "pixels" for none.
        tries: Starts of k-means (k-means++), of which the closest fit is kept.
        seed: Seed of the starts.

    Raises:
        DataError: If scikit-learn is missing, or there are fewer different images than clusters (when it learns).
    """

    def learn(images: Tensor) -> dict[str, Tensor]:
        cluster = optional("sklearn.cluster", "learn", "data.labels=clusters", DataError)
        threads = optional("threadpoolctl", "learn", "data.labels=clusters", DataError)
        order = np.unique(hashes := hash_images(images), axis=0, return_inverse=True)[1].argsort(kind="stable")
        if (different := len(np.unique(hashes, axis=0))) < count:
            raise DataError(
                f"data.labels=clusters makes at most as many clusters as there are different training images; got "
                f"count={count} for {different}. Set data.labels.count={different} or less."
            )
        rows = features_of(extractor(features, shape), images)[order]
        with threads.threadpool_limits(1):  # sums in one order, whatever the machine
            fit = cluster.KMeans(count, n_init=tries, random_state=seed, algorithm="lloyd").fit(rows)
        largest_first = np.argsort(-np.bincount(fit.labels_, minlength=count), kind="stable")
        return {"centres": torch.from_numpy(np.ascontiguousarray(fit.cluster_centers_[largest_first], np.float32))}

    def label(images: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
        if not len(images):
            return torch.empty(0, dtype=torch.int64)
        centres, extract = learned["centres"].double(), extractor(features, shape)
        rows = torch.from_numpy(features_of(extract, images)).double().split(4096)
        return torch.cat([(centres.square().sum(1) - 2 * part @ centres.T).argmin(1) for part in rows])

    return Labelling(tuple(f"cluster {k}" for k in range(count)), learn, label)
