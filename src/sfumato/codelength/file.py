"""Files of images under a run: `sfumato compress` and `sfumato decompress` without the words.

The receiver needs the run, and nothing else: the levels of the walk, the classes and the seed of the shared randomness
are in the file. The levels are those of the cheapest walk in so many steps, by the errors of x0-hat that a few training
images had once (`calibrate`; kept in RUN/coding.json). They stand on the ladder that a file stores in a byte a level.
Networks of a discrete table are asked between its levels, as along the ODE.

Before a file is believed its header is held against the run: model, size of the images, number of images, classes.

Three rates of one file, in bits per dimension:

    formula     sum of KL along the forward process of each image: what the bound promises
    predicted   sum of KL along the coded walk: what its indices should cost
    spent       information of the symbols; the file adds the header and the sections' frames
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.codelength.chain import NEAREST, Chain, continuous, own_gauge, span
from sfumato.codelength.measure import Images, measure_bound
from sfumato.core.denoiser import Denoiser, Preconditioned
from sfumato.core.find import find
from sfumato.core.images import to_float, to_uint8
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise
from sfumato.core.reading import read_bytes, read_json
from sfumato.core.writing import replace_json
from sfumato.data.dataset import DataError
from sfumato.data.decoding import decode_alone
from sfumato.data.transforms import to_channels
from sfumato.likelihood.codec import coding
from sfumato.likelihood.codec.coding import Cost, Decoded
from sfumato.likelihood.codec.container import RUNGS, CorruptFileError, Header, fingerprint, ladder, sections
from sfumato.likelihood.codec.rate import CODES, cheapest, rates
from sfumato.likelihood.vlb import Bound
from sfumato.metrics.protocol import canonical
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run

CALIBRATION = 32  # training images whose rate decides the levels
EVERY = 2  # rungs between the levels of the calibration
MOST = 4096  # images of a file


@dataclass(frozen=True, eq=False)
class Model:
    """A run as the codec sees it.

    Attributes:
        denoiser: Denoiser that answers at every level, in fp32.
        identity: SHA-256 of the weights and of how they are asked, in hexadecimal.
        run: The run that holds the weights.
        device: Device of the denoiser.
    """

    denoiser: Preconditioned
    identity: str
    run: Run
    device: torch.device

    @classmethod
    def of(cls, run: Run, use: str | None = None, device: torch.device | str = "cpu") -> Model:
        """Open a run's denoiser. Arguments as `Run.denoiser`."""
        run.require_pixels("A codec")
        denoiser = continuous(run.denoiser(use, device))
        denoiser.autocast = None
        recipe = run.recipe
        asked = [str(part) for part in (recipe.schedule, recipe.target, recipe.c_noise)] + [recipe.c_in]
        words = canonical([fingerprint(denoiser.network), asked, recipe.sigma_data])
        return cls(denoiser, hashlib.sha256(words.encode()).hexdigest(), run, torch.device(device))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        return self.run.plan.image


def read_images(paths: Sequence[Path | str], shape: tuple[int, int, int]) -> Tensor:
    """Read image files of exactly a run's size as uint8, shape (B, C, H, W).

    Raises:
        ValueError: If a file is no image, or of another size.
    """
    images = []
    channels, height, width = shape
    for path in map(Path, paths):
        try:
            pixels = torch.from_numpy(decode_alone(read_bytes(path)).pixels)[None]
        except DataError as error:
            raise ValueError(f"{path} is not an image that can be read: {error}.") from None
        if pixels.shape[2:] != (height, width):
            raise ValueError(
                f"{path} is {pixels.shape[3]} x {pixels.shape[2]} and this run knows images of {width} x {height}. "
                "Crop or scale it first."
            )
        images.append(to_channels(pixels, channels))
    return torch.cat(images)


def calibrate(
    model: Model,
    near: float | None = None,
    root: Path | str | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[list[int], list[float]]:
    """Return (rungs, mean squared error of x0-hat at each) over a few training images; measured once per run.

    Arguments:
        model: The run as `Model.of` opens it.
        near: sigma / alpha where the walk ends; None for `NEAREST`.
        root: Folder that holds the datasets; None for the default.
        progress: Called with the number of evaluations done since the last call.
    """
    low, high = span(model.run.plan)
    near = NEAREST if near is None else near
    low = max(low, near)
    if not (near > 0 and low < high / 2):  # nor NaN
        raise ValueError(f"The walk ends at a level of sigma/alpha above 0 and below {high / 2:g}; got {near:g}.")
    first, last = int(np.floor(RUNGS * np.log2(high))), int(np.ceil(RUNGS * np.log2(low)))
    rungs = list(range(first, last - 1, -EVERY))
    file = model.run.path / "coding.json"
    known = _read_json(file)
    key = f"{model.identity[:16]} {rungs[0]}:{rungs[-1]}"
    x0_mse = _errors(known.get(key), len(rungs))
    if x0_mse is None:
        data = load_data(model.run.recipe, "train", root)
        data = data.take(min(CALIBRATION, len(data)), seed=1)
        labels = data.labels if model.run.plan.shape.classes else None
        chain = Chain(ladder(own_gauge(model.run.plan), rungs), "small-own", "ladder")
        bound = measure_bound(
            model.denoiser, Images(data.images, labels), chain, device=model.device, progress=progress
        )
        x0_mse = bound.x0_mse.mean(0).tolist()
        replace_json(file, known | {key: {"x0_mse": x0_mse}})
    return rungs, x0_mse


def _errors(kept: Any, count: int) -> list[float] | None:
    """Return the errors that an earlier calibration kept; None if they are not so many numbers."""
    found = kept.get("x0_mse") if isinstance(kept, dict) else None
    good = isinstance(found, list) and len(found) == count and all(isinstance(error, int | float) for error in found)
    return found if good else None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(read_json(file))
    except (OSError, ValueError):
        return {}


def grid_of(
    model: Model,
    steps: int,
    near: float | None = None,
    root: Path | str | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Level:
    """Return the levels of the codec's walk: the cheapest one of `steps` steps, on the ladder, then clean.

    Arguments:
        model: The run as `Model.of` opens it.
        steps: Number of steps before the last one, >= 2; as many as there are levels, if those are fewer.
        near, root, progress: The same as in `calibrate`.

    Raises:
        ValueError: If steps is below 2.
    """
    if steps < 2:
        raise ValueError(f"The codec walks at least 2 steps; got {steps}.")
    rungs, x0_mse = calibrate(model, near, root, progress)
    gauge = own_gauge(model.run.plan)
    index = cheapest(ladder(gauge, rungs)[:-1], torch.tensor(x0_mse), min(steps, len(rungs) - 1))
    return ladder(gauge, [rungs[i] for i in index])


@dataclass(frozen=True, eq=False)
class Coded:
    """A coded batch with what is known about its cost, per step; bits are sums over the batch.

    Attributes:
        data: The bytes of the file.
        costs: Cost of every step; that of the exact pixels comes last, if there are any.
        formula: Bits of the bound before each level of the walk, prior included, float64 (N,).
        rmse: Error of x0-hat on 0..255 after 0, 1, ... steps, as decoded again, float64 (steps + 1,).
        dimensions: Numbers in the batch: B C H W.
        header: Bytes of the header.
        frames: Bytes of the sections' frames.
    """

    data: bytes
    costs: list[Cost]
    formula: np.ndarray
    rmse: np.ndarray
    dimensions: int
    header: int
    frames: int

    def rows(self) -> list[dict[str, float | int | str | None]]:
        """Return a table: a row per step."""
        rows: list[dict[str, float | int | str | None]] = []
        predicted = spent = 0.0
        d = self.dimensions
        for i, cost in enumerate(self.costs):
            exact = i >= len(self.rmse) - 1
            kl, bits = float(cost.kl.sum()), float(cost.bits.sum())
            predicted, spent = predicted + kl, spent + bits
            rows.append(
                {
                    "step": "pixels" if exact else cost.step + 1,
                    "KL bits": round(kl, 1),
                    "spent bits": round(bits, 1),
                    "formula b/d": None if exact else float(self.formula[i + 1]) / d,
                    "predicted b/d": predicted / d,
                    "spent b/d": spent / d,
                    "over %": round(100 * (spent / predicted - 1), 1) if predicted > 0 else None,
                    "file bytes": cost.bytes,
                    "RMSE": 0.0 if exact else float(self.rmse[i + 1]),
                }
            )
        return rows

    def overhead(self, above: float = 0.1) -> float | None:
        """Return the largest share of bits spent over those predicted, at any prefix of more than `above` bits/dim."""
        steps = len(self.rmse) - 1
        predicted = np.cumsum([float(c.kl.sum()) for c in self.costs[:steps]])
        spent = np.cumsum([float(c.bits.sum()) for c in self.costs[:steps]])
        counts = predicted / self.dimensions > above
        return float((spent / np.maximum(predicted, 1e-9) - 1)[counts].max()) if counts.any() else None


def encode_images(
    model: Model,
    images: Tensor,
    grid: Level,
    *,
    labels: Tensor | None = None,
    seed: int = 0,
    lossless: bool = False,
    rule: str = "greedy",
    search: int = 16,
    section: int = 64,
    progress: Callable[[int], object] = lambda count: None,
) -> Coded:
    """Code images into one file and decode it again, which proves it and measures every prefix.

    Arguments:
        model: The run as `Model.of` opens it.
        images: uint8, shape (B, C, H, W) of the run.
        grid: Levels of the walk, from `grid_of`.
        labels: int64 (B,) or None.
        seed, lossless, rule, search, section: The same as in `likelihood.codec.coding.encode`.
        progress: Called with 1 after every step of the three walks: coding, decoding and the formula.

    Raises:
        ValueError: If the images or labels do not fit the run.
        ArithmeticError: If the file does not decode to what was sent.
    """
    if tuple(images.shape[1:]) != model.shape or not 0 < len(images) <= MOST:
        raise ValueError(f"A file of this run holds 1 to {MOST} images of {model.shape}; got {tuple(images.shape)}.")

    def stepped(cost: Cost) -> None:
        progress(1)

    x0 = to_float(images).to(model.device)
    label = None if labels is None else labels.to(model.device)
    encoded = coding.encode(
        model.denoiser, x0, grid, model=model.identity, seed=seed, label=label, lossless=lossless, rule=rule,
        search=search, section=section, watch=stepped,
    )  # fmt: skip
    rmse, last = [], None
    for last in decode_file(model, encoded.data):
        if last.codes is None:
            rmse.append(CODES * float((last.state.x0.clamp(-1, 1) - x0).square().mean().sqrt()))
        progress(1)
    if last is None or not last.complete or (last.codes is not None and not torch.equal(last.codes, images.cpu())):
        raise ArithmeticError("The file does not decode to the images that were coded; nothing was written.")
    bound = measure_bound(
        model.denoiser,
        Images(images.cpu(), labels),
        Chain(grid, "small-own", ""),
        batch=len(images),
        device=model.device,
        progress=lambda count: progress(1),
    )
    dimensions = images.numel()
    _, start = Header.unpack(encoded.data, model.identity)
    frames = len(encoded.data) - start - sum(len(s.payload) for s in sections(encoded.data, start))
    return Coded(encoded.data, encoded.costs, _sums(bound, dimensions), np.array(rmse), dimensions, start, frames)


def _sums(bound: Bound, dimensions: int) -> np.ndarray:
    return np.asarray(rates(bound).mean(0).numpy() * dimensions)


def walks(steps: int, lossless: bool) -> int:
    """Return how often `encode_images` reports progress on a grid of `steps` + 1 steps."""
    return 3 * steps + 2 + 2 * lossless


def check_header(model: Model, data: bytes) -> Header:
    """Read a file's header and hold it against the run, before anything is computed.

    Raises:
        CorruptFileError: If it is no header, or claims what the run cannot have coded.
        WrongModelError: If another model coded the file.
    """
    header, _ = Header.unpack(data, model.identity)
    classes = len(model.run.classes)
    if header.shape[1:] != model.shape or not 0 < header.shape[0] <= MOST:
        raise CorruptFileError(
            f"The header claims {header.shape[0]} images of {header.shape[1:]}; this run codes 1 to {MOST} images of "
            f"{model.shape}."
        )
    if header.label is not None and bool((header.label >= classes).any()):
        raise CorruptFileError(
            f"The header names class {int(header.label.max())} and this run has {classes} classes: the file was not "
            "made with it."
        )
    return header


def decode_file(model: Model, data: bytes) -> Iterator[Decoded]:
    """Decode a file or any prefix of one, yielding after every step; errors as in `check_header`."""
    check_header(model, data)
    return coding.decode(data, model.denoiser, model=model.identity, device=model.device)


def picture_of(model: Model, found: Decoded, header: Header, finish: str = "none") -> Tensor:
    """Return what a receiver shows: uint8 images, shape (B, C, H, W).

    Arguments:
        model: The run as `Model.of` opens it.
        found: State and levels that `decode_file` returned.
        header: Header that `decode_file` returned.
        finish: "none" for the exact pixels or x0-hat, or a sampler that walks the rest: "ancestral" for a plausible
            picture, "ddim" or another ODE sampler for the most likely path.
    """
    if found.codes is not None:
        return found.codes
    if finish == "none":
        return to_uint8(found.state.x0.cpu())
    noise = SamplingNoise(torch.arange(header.shape[0]) + header.seed, model.shape, device=model.device)
    label = None if header.label is None else header.label.to(model.device)
    denoiser: Denoiser = model.denoiser
    return to_uint8(coding.finish(found, denoiser, find("sampler", finish), noise=noise, label=label).cpu())
