"""Measure real images, block by block, so that a killed run loses one block.

Image i of a split is the i-th of a seeded draw, whatever is asked beside it: it meets the noise of address (seed, i) at
every level, and the same dequantisation and probe along the ODE. So 500 images begin with the 200 of a shorter run, two
models are compared on equal noise, and standard errors are over images.

Every finished block is a small file in a folder named by everything that decides its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.codelength.chain import Chain
from sfumato.core.archives import read_npz
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser
from sfumato.core.gauge import Gauge
from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise
from sfumato.core.writing import replacing
from sfumato.likelihood.ode import dequantise, likelihood, probes
from sfumato.likelihood.vlb import Bound, vlb

Stored = Mapping[str, np.ndarray]
Block = tuple[range, Tensor, Label | None]  # positions, float images, labels
Progress = Callable[[int], object]  # called with the image-evaluations done since the last call


@dataclass(frozen=True, eq=False)
class Images:
    """Images to measure, with their labels.

    Attributes:
        codes: uint8, shape (B, C, H, W).
        label: int64 (B,), a `Condition`, or None.
    """

    codes: Tensor
    label: Label | None

    def __len__(self) -> int:
        return len(self.codes)

    def blocks(self, size: int, device: torch.device | str = "cpu") -> Iterator[Block]:
        """Yield consecutive blocks of at most `size` images on a device."""
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            part = slice(rows.start, rows.stop)
            label = None if self.label is None else self.label[part].to(device)
            yield rows, to_float(self.codes[part]).to(device), label


@dataclass(frozen=True, eq=False)
class Flow:
    """Bits along the probability-flow ODE; float64 and int64, shape (B,) each.

    Attributes:
        bits: Bits/dim, offset included.
        nfe: Denoiser calls per image.
        offset: Bits/dim that dequantisation adds.
    """

    bits: Tensor
    nfe: Tensor
    offset: float


@dataclass(frozen=True, eq=False)
class OdePath:
    """The path on which the ODE is walked.

    Attributes:
        gauge: Path of levels and its coordinate.
        near: The cleanest level of the walk.
        far: The noisiest level of the walk.
        rtol: Tolerance, relative and absolute, per image.
    """

    gauge: Gauge
    near: Level
    far: Level
    rtol: float = 1e-4


def ids(rows: Sequence[int], seed: int) -> Tensor:
    """Return the noise addresses of images by position, for one seed: int64."""
    return torch.as_tensor(rows, dtype=torch.int64) + (seed << 32)


def measure_bound(
    denoiser: Denoiser,
    images: Images,
    chain: Chain,
    *,
    seeds: Sequence[int] = (0,),
    batch: int = 64,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    progress: Progress = lambda count: None,
) -> Bound:
    """Return the variational bound of every image, averaged over noise seeds.

    Arguments:
        denoiser: Denoiser whose bound is measured; asked at every level of the chain.
        images: Clean images and their labels.
        chain: Levels and variance of the bound.
        seeds: Noise seeds; more cost more and leave less noise in an image's value.
        batch: Images of a block.
        device: Device of the denoiser.
        folder: Folder in which finished blocks are kept; None to keep none.
        progress: Called with the number of images done after every step.
    """

    def measured(x0: Tensor, label: Label | None, address: Tensor) -> Stored:
        noise = SamplingNoise(address, x0.shape[1:], device=device)
        steps = []
        for term in vlb(denoiser, x0, chain.grid, noise=noise, label=label, variance=chain.variance):
            steps.append(term)
            progress(len(x0))
        bound = Bound.gather(x0, chain.grid, steps)
        return {"terms": bound.terms.numpy(), "prior": bound.prior.numpy(), "x0_mse": bound.x0_mse.numpy()}

    def kept(count: int) -> None:
        progress(count * (len(chain.grid) - 1))

    parts = []
    for found in _blocks("bound", images.blocks(batch, device), seeds, folder, measured, kept):
        means = {key: torch.from_numpy(np.mean([f[key] for f in found], 0)) for key in ("terms", "prior", "x0_mse")}
        parts.append(Bound(chain.grid, **means))
    return Bound.join(parts)


def measure_ode(
    denoiser: Denoiser,
    images: Images,
    path: OdePath,
    *,
    seeds: Sequence[int] = (0,),
    batch: int = 64,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    progress: Progress = lambda count: None,
) -> Flow:
    """Return the ODE likelihood of every image, averaged over dequantisations. Arguments as in `measure_bound`."""

    def measured(x0: Tensor, label: Label | None, address: Tensor) -> Stored:
        x, offset = dequantise(x0, address)
        one = likelihood(
            denoiser, x, path.near, path.far, probe=probes(address, x), offset=offset, label=label, **options
        )
        progress(len(x))
        return {"bits": one.bits.numpy(), "nfe": one.nfe.numpy(), "offset": np.array(offset)}

    options: dict[str, Any] = {"gauge": path.gauge, "rtol": path.rtol, "atol": path.rtol}
    bits, nfe, offset = [], [], 0.0
    for found in _blocks("ode", images.blocks(batch, device), seeds, folder, measured, progress):
        bits.append(torch.from_numpy(np.mean([f["bits"] for f in found], 0)))
        nfe.append(torch.from_numpy(np.sum([f["nfe"] for f in found], 0)))
        offset = float(found[0]["offset"])
    return Flow(torch.cat(bits), torch.cat(nfe), offset)


def _blocks(
    kind: str,
    blocks: Iterable[Block],
    seeds: Sequence[int],
    folder: Path | None,
    measured: Callable[[Tensor, Label | None, Tensor], Stored],
    kept: Callable[[int], object],
) -> Iterator[list[Stored]]:
    """Yield what was measured of every block, once per seed: anew, or from a file that an earlier run kept."""
    for rows, x0, label in blocks:
        found = []
        for seed in seeds:
            name = f"{kind}-{seed}-{rows.start}-{rows.stop}"
            if (stored := _load(folder, name)) is None:
                stored = measured(x0, label, ids(rows, seed))
                _store(folder, name, stored)
            else:
                kept(len(rows))
            found.append(stored)
        yield found


def _load(folder: Path | None, name: str) -> Stored | None:
    """Return a stored block, or None if there is none that reads."""
    if folder is None or not (file := folder / f"{name}.npz").exists():
        return None
    try:
        return read_npz(file, most=1 << 32)
    except (OSError, ValueError, EOFError, KeyError):  # a block that was cut off by a full disk is measured again
        return None


def _store(folder: Path | None, name: str, values: Stored) -> None:
    if folder is None:
        return
    with replacing(folder / f"{name}.npz") as partial, open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **values)
