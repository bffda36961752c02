"""Measure real images, block by block, so that a killed run loses one block.

Image i of a split is the i-th of a seeded draw, whatever is asked beside it: it meets the noise of address (seed, i) at
every level, and the same dequantisation and probe along the ODE. So 500 images begin with the 200 of a shorter run, two
models are compared on equal noise, and standard errors are over images.

Every finished block is a small file in a folder named by everything that decides its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.codelength.chain import Chain
from sfumato.core.denoiser import Denoiser
from sfumato.core.gauge import Gauge
from sfumato.core.images import to_float
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise
from sfumato.likelihood.ode import dequantise, likelihood, probes
from sfumato.likelihood.vlb import Bound, vlb

Progress = Callable[[int], object]  # called with the image-evaluations done since the last call


@dataclass(frozen=True, eq=False)
class Images:
    """Images to measure, with their labels.

    Attributes:
        codes: uint8, shape (B, C, H, W).
        label: int64 (B,), or None.
    """

    codes: Tensor
    label: Tensor | None

    def __len__(self) -> int:
        return len(self.codes)

    def blocks(self, size: int) -> Iterator[tuple[range, Tensor, Tensor | None]]:
        """Yield (positions, float images, labels) of consecutive blocks."""
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            part = slice(rows.start, rows.stop)
            yield rows, to_float(self.codes[part]), None if self.label is None else self.label[part]


@dataclass(frozen=True, eq=False)
class Flow:
    """Bits along the probability-flow ODE; float64 and int64, shape (B,) each.

    Attributes:
        bits: Bits/dim, offset included.
        nfe: Denoiser calls per image.
        offset: What dequantisation adds, bits/dim.
    """

    bits: Tensor
    nfe: Tensor
    offset: float


@dataclass(frozen=True, eq=False)
class OdePath:
    """The path on which the ODE is walked.

    Attributes:
        gauge: Path of levels and its coordinate.
        near: The cleanest level.
        far: The noisiest level.
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
        device: Device that computes.
        folder: Where finished blocks are kept; None to keep none.
        progress: Called with the number of images done after every step.
    """
    parts = []
    for rows, x0, label in images.blocks(batch):
        found = []
        for seed in seeds:
            name = f"bound-{seed}-{rows.start}-{rows.stop}"
            if (stored := _load(folder, name)) is None:
                stored = _walk(denoiser, x0, label, chain, ids(rows, seed), device, progress)
                _store(folder, name, stored)
            else:
                progress(len(rows) * (len(chain.grid) - 1))
            found.append(stored)
        means = {key: torch.from_numpy(np.mean([f[key] for f in found], 0)) for key in ("terms", "prior", "x0_mse")}
        parts.append(Bound(chain.grid, **means))
    return Bound.join(parts)


def _walk(
    denoiser: Denoiser,
    x0: Tensor,
    label: Tensor | None,
    chain: Chain,
    address: Tensor,
    device: torch.device | str,
    progress: Progress,
) -> dict[str, np.ndarray]:
    x0, label = x0.to(device), None if label is None else label.to(device)
    noise = SamplingNoise(address, x0.shape[1:], device=device)
    steps = []
    for term in vlb(denoiser, x0, chain.grid, noise=noise, label=label, variance=chain.variance):
        steps.append(term)
        progress(len(x0))
    bound = Bound.gather(x0, chain.grid, steps)
    return {"terms": bound.terms.numpy(), "prior": bound.prior.numpy(), "x0_mse": bound.x0_mse.numpy()}


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
    bits, nfe, offset = [], [], 0.0
    for rows, x0, label in images.blocks(batch):
        found = []
        for seed in seeds:
            name = f"ode-{seed}-{rows.start}-{rows.stop}"
            if (stored := _load(folder, name)) is None:
                address = ids(rows, seed)
                x, offset = dequantise(x0.to(device), address)
                one = likelihood(
                    denoiser,
                    x,
                    path.near,
                    path.far,
                    gauge=path.gauge,
                    probe=probes(address, x),
                    offset=offset,
                    label=None if label is None else label.to(device),
                    rtol=path.rtol,
                    atol=path.rtol,
                )
                stored = {"bits": one.bits.numpy(), "nfe": one.nfe.numpy(), "offset": np.array(offset)}
                _store(folder, name, stored)
            offset = float(stored["offset"])
            progress(len(rows))
            found.append(stored)
        bits.append(torch.from_numpy(np.mean([f["bits"] for f in found], 0)))
        nfe.append(torch.from_numpy(np.sum([f["nfe"] for f in found], 0)))
    return Flow(torch.cat(bits), torch.cat(nfe), offset)


def _load(folder: Path | None, name: str) -> Mapping[str, np.ndarray] | None:
    """Return a stored block, or None if there is none that reads."""
    if folder is None or not (file := folder / f"{name}.npz").exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, KeyError):  # a block that was cut off by a full disk is measured again
        return None


def _store(folder: Path | None, name: str, values: Mapping[str, np.ndarray]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{os.getpid()}.tmp"
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **values)
    partial.replace(folder / f"{name}.npz")
