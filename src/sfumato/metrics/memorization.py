"""Does the model copy its training images?  Each number stands beside the same number of held-out real images.

    copies         generated images that are training images, pixel for pixel (by hash)
    distances      of each generated image to its nearest training image; and of each held-out image to its own
    closer         share of generated images nearer to training images than all but 1% of held-out images are
    authentic      share of generated images g that are farther from their nearest training image t than t is from its
                   own nearest training neighbour (AuthPct); for independent images its value depends on the dimension,
                   so only the difference from the held-out images' value says something
    1-NN accuracy  leave-one-out accuracy of telling generated from real images by the nearest neighbour's kind; 0.5
                   if the two sets are alike, above if they differ, and *below 0.5 an alarm*: each generated image then
                   sits beside a real one, as copies do

Training images have near-duplicates of their own, which is why nothing here is read without its held-out twin.

References:
    Alaa, van Breugel, Saveliev, van der Schaar. How Faithful is your Synthetic Data? 2022.
        https://arxiv.org/abs/2102.08921 (section 3.3)
    Lopez-Paz, Oquab. Revisiting Classifier Two-Sample Tests. 2017. https://arxiv.org/abs/1610.06545
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.metrics.jackknife import Estimate
from sfumato.metrics.neighbours import nearest
from sfumato.metrics.prdc import share
from sfumato.metrics.statistics import Features, check_pair


@dataclass(frozen=True, slots=True)
class Memorization:
    """What the nearest training images say.

    Arguments:
        distance: float64 (n,), Euclidean distance of each generated image to its nearest training image.
        index: int64 (n,), that training image.
        held_out_distance: float64 (h,), the same for held-out images.
        zero: Generated images at distance exactly 0.
        closer: Share of generated images within the 1% nearest held-out distance.
        authentic: AuthPct of the generated images.
        authentic_held_out: AuthPct of the held-out images.
    """

    distance: np.ndarray
    index: np.ndarray
    held_out_distance: np.ndarray
    zero: int
    closer: Estimate
    authentic: Estimate
    authentic_held_out: Estimate

    def nearest_first(self, count: int) -> np.ndarray:
        """Return the rows of the generated images that are nearest to training images, nearest first."""
        return np.argsort(self.distance, kind="stable")[:count]


def memorization(generated: Features, train: Features, held_out: Features) -> Memorization:
    """Compare generated and held-out images by their nearest training images.

    Arguments:
        generated: Features or pixels (n, d).
        train: The same of the training images (t, d), t >= 2.
        held_out: The same of real images the model has not seen (h, d).

    Returns:
        Distances, neighbours and shares.
    """
    generated, train = check_pair(generated, train)
    held_out, _ = check_pair(held_out, train)
    gap, index = (a[:, 0] for a in nearest(generated, train))
    held_gap, held_index = (a[:, 0] for a in nearest(held_out, train))
    asked, place = np.unique(np.concatenate((index, held_index)), return_inverse=True)
    own, names = nearest(train[asked], train, 2)  # a training image and its neighbour; its copy counts as neighbour
    itself = names == asked[:, None]
    own_gap = np.where(itself[:, 0], own[:, 1], own[:, 0])[place]
    authentic = gap > own_gap[: len(index)]
    authentic_held_out = held_gap > own_gap[len(index) :]
    near = np.quantile(held_gap, 0.01)
    return Memorization(
        np.sqrt(gap),
        index,
        np.sqrt(held_gap),
        int((gap == 0).sum()),
        share(int((gap < near).sum()), len(gap)),
        share(int(authentic.sum()), len(gap)),
        share(int(authentic_held_out.sum()), len(held_gap)),
    )


def two_sample(x: Features, y: Features) -> Estimate:
    """Estimate the leave-one-out accuracy of a 1-nearest-neighbour classifier of generated against real.

    Arguments:
        x: Generated features (n, d).
        y: Real features (n, d), as many.

    Returns:
        The accuracy; a tie between the kinds counts half.  Below 0.5 is an alarm.

    Raises:
        ValueError: If the sets differ in size, which would move the value of equal distributions away from 0.5.
    """
    x, y = check_pair(x, y)
    if len(x) != len(y):
        raise ValueError(f"The two-sample test needs as many generated as real images, got {len(x)} and {len(y)}.")
    right = 0.0
    for own, other in ((x, y), (y, x)):
        to_own, to_other = nearest(own, own, same=True)[0][:, 0], nearest(own, other)[0][:, 0]
        right += float((to_own < to_other).sum() + (to_own == to_other).sum() / 2)
    return share(right, 2 * len(x))


def copies(generated_hashes: np.ndarray, training_hashes: np.ndarray) -> np.ndarray:
    """Find generated images that are training images, pixel for pixel.

    Arguments:
        generated_hashes: uint8 (n, 32), a hash of each generated image's pixels.
        training_hashes: uint8 (t, 32).

    Returns:
        int64 (n,), the first equal training image, or -1.
    """
    first: dict[bytes, int] = {}
    for i, row in enumerate(np.ascontiguousarray(training_hashes)):
        first.setdefault(row.tobytes(), i)
    return np.array([first.get(row.tobytes(), -1) for row in np.ascontiguousarray(generated_hashes)], np.int64)
