"""Feed a training loop: sample p of a run is a pure function of (seed, p).

Training visits samples at global positions p = 0, 1, 2, .... With n images, epoch e = p // n visits each image once,
in an order that depends on (seed, e) alone:

    order(p) = permutation(seed, p // n)[p % n]

and every augmentation is addressed by (seed, p) too. So a batch is any range of positions: the samples are the same
for every batch size, number of accumulation steps and world size, and a run resumes mid-epoch from one integer. Rank r
of R simply asks for its share of the range.

The whole set lies on the device as one uint8 tensor, a quarter of its size as floats; a batch is one `index_select`
and one conversion, with no workers, no queues and no copies back. (60,000 images of 28x28 are 47 MB.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.images import to_float
from sfumato.core.noise import uniform
from sfumato.data.dataset import Dataset
from sfumato.data.order import ranking
from sfumato.data.told.beside import condition_of


class Loader:
    """Serve batches of a dataset by position.

    Arguments:
        dataset: Images and labels, held in memory.
        seed: 0 <= seed < 2**64; decides order and flips.
        device: Device that holds the images and makes the batches.
        flip: Mirror each sample left-right with probability 1/2.

    Raises:
        ValueError: If the dataset is empty or the seed out of range.

    >>> from sfumato.data import load
    >>> loader = Loader(load("digits"), seed=0)
    >>> x0, label, positions = loader.batch(1400, 64)
    >>> x0.shape, label.shape, (positions[0].item(), positions[-1].item())
    (torch.Size([64, 1, 8, 8]), torch.Size([64]), (1400, 1463))
    """

    def __init__(
        self, dataset: Dataset, seed: int = 0, device: torch.device | str = "cpu", *, flip: bool = False
    ) -> None:
        if not len(dataset):
            raise ValueError(f"A loader needs at least one image; {dataset!r} is empty.")
        self.dataset, self.seed, self.device, self.flip = dataset, seed, torch.device(device), flip
        self._count = len(dataset)
        self._images = dataset.images.to(self.device)
        self._labels = None if dataset.labels is None else dataset.labels.to(self.device)
        self._permutations: dict[int, np.ndarray] = {}
        self._permutation(0)

    def __len__(self) -> int:
        return self._count

    def order(self, positions: Tensor | np.ndarray) -> Tensor:
        """Map global sample positions to images.

        Arguments:
            positions: int64 (B,), each >= 0.

        Returns:
            int64 (B,) on the CPU, places in the dataset in [0, n).

        Raises:
            ValueError: If a position is negative.
        """
        p = np.asarray(positions, dtype=np.int64)
        if p.size and p.min() < 0:
            raise ValueError(f"A sample position is >= 0; got {p.min()}.")
        epoch, place = np.divmod(p, len(self))
        found = np.empty_like(p)
        for e in np.unique(epoch):
            here = epoch == e
            found[here] = self._permutation(int(e))[place[here]]
        return torch.from_numpy(found)

    def batch(self, start: int, count: int) -> tuple[Tensor, Label | None, Tensor]:
        """Return the samples at positions start, ..., start + count - 1.

        Arguments:
            start: First global position, >= 0.
            count: How many, >= 1.

        Returns:
            Images float32 (count, C, H, W) in [-1, 1], labels int64 (count,) or None, with what else is told a
            `Condition` with raw attributes, and the positions int64 (count,), all on the device.

        Raises:
            ValueError: If `start` or `count` is out of range.
        """
        if start < 0 or count < 1:
            raise ValueError(f"A batch starts at a position >= 0 and holds at least one sample; got {start}, {count}.")
        positions = torch.arange(start, start + count)
        chosen = self.order(positions)
        codes = self.codes(start, chosen)
        positions = positions.to(self.device, non_blocking=True)
        mirrored = self.mirrored(positions)
        if mirrored is not None:
            codes = torch.where(mirrored[:, None, None, None], codes.flip(-1), codes)
        label = None
        if self._labels is not None:
            label = self._labels.index_select(0, chosen.to(self.device, non_blocking=True))
        told: Label | None = label
        if self.dataset.vector is not None or self.dataset.beside is not None:
            told = condition_of(self.dataset, label, chosen, mirrored=mirrored, device=self.device)
        return to_float(codes), told, positions

    def mirrored(self, positions: Tensor) -> Tensor | None:
        """Return which samples are mirrored left-right, bool (B,) on the device; None if none ever is.

        Arguments:
            positions: int64 (B,) on the device, each >= 0.
        """
        if not self.flip:
            return None
        return uniform(positions, seed=self.seed, purpose="flip", device=self.device) < 0.5

    def codes(self, start: int, chosen: Tensor) -> Tensor:
        """Return the pixels of a batch on the device, uint8 (B, C, H, W).

        Arguments:
            start: Position of the batch's first sample.
            chosen: int64 (B,), the batch's images, on the CPU.
        """
        return self._images.index_select(0, chosen.to(self.device, non_blocking=True))

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            if len(self._permutations) >= 2:  # a batch may straddle two epochs
                del self._permutations[min(self._permutations)]
            self._permutations[epoch] = ranking(len(self), self.seed, epoch)
        return self._permutations[epoch]
