"""A progressive codec made of a denoiser: any prefix of the file is a coarser picture.

DDPM's Algorithms 3 and 4 send x_T, x_{T-1}, ... each from q(x_s | x_t, x0), which the receiver expects from
p(x_s | x_t) = N(k.x0 D(x_t) + k.xt x_t, beta-tilde): a shift of the mean by ``k.x0 (x0 - D(x_t))`` at equal variance,
which `channel` sends for about its KL. Stopped at level t, the receiver shows x0-hat = D(x_t), or lets any sampler
finish from x_t (`finish`): ancestral for a plausible picture, an ODE sampler for a deterministic one.

A file (`container`) holds every step's symbols (`step`) and, if lossless, at the end the exact pixels (`entropy`).

Sender and receiver must run the same arithmetic: the same model on the same kind of machine, device and thread count,
with the batch as it was coded. Where they differ in last bits the progressive part degrades no more than x0-hat does,
for nothing in it is decoded with the help of the model's output; the lossless part rounds the mean to 1/16 of a code
before use, notices a slip by its checksum, and refuses.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, Algorithms 3 and 4.
    https://arxiv.org/abs/2006.11239
    Theis, Salimans, Hoffman, Mentzer. Lossy Compression with Gaussian Diffusion. 2022 (DiffC).
    https://arxiv.org/abs/2206.08889
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.denoiser import Denoiser, Sampler, State
from sfumato.core.find import nearest
from sfumato.core.images import to_uint8
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.likelihood.codec.channel import MAX_SEARCH, RULES, Shared
from sfumato.likelihood.codec.container import CorruptFileError, Header, Section, sections, stored
from sfumato.likelihood.codec.entropy import Reader, Writer, entropy_coder, receive_pixels, send_pixels
from sfumato.likelihood.codec.step import FIRST, receive, send


class Cost(NamedTuple):
    """The cost of one step: its index, bits spent and KL along the walk per image (B,), and the file's bytes so far."""

    step: int
    bits: Tensor
    kl: Tensor
    chunks: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """A coded batch: the file's bytes and what every step cost."""

    data: bytes
    costs: list[Cost]


@dataclass(frozen=True, eq=False)
class Decoded:
    """A receiver's state after a step.

    Attributes:
        step: Steps received so far; 0 is the shared noise that costs nothing.
        state: x at its level, and x0-hat there.
        rest: The levels still to walk, starting with the state's own.
        codes: The exact pixel codes, uint8 (B, C, H, W), once a lossless file is complete; else None.
        complete: Whether this is all the file was made to hold.
    """

    step: int
    state: State
    rest: Level
    codes: Tensor | None
    complete: bool


def _start(header: Header, device: torch.device) -> Tensor:
    """Return x_T, which sender and receiver draw from the prior N(0, (alpha^2 + sigma^2) I)."""
    n = noise.normal(range(header.shape[0]), header.shape[1:], seed=header.seed, purpose="codec start", device=device)
    return n * float(torch.hypot(header.grid.alpha[0], header.grid.sigma[0]))


def _move(kernel: Kernel, x0: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Return x_s from x0-hat, x_t and the unit sample z."""
    return like(kernel.x0, x) * x0 + like(kernel.xt, x) * x + like((0.5 * kernel.log_var_small).exp(), x) * z


def _check(x0: Tensor, grid: Level, rule: str, search: int, section: int) -> None:
    if x0.ndim != 4:
        raise ValueError(f"The codec takes images of shape (B, C, H, W); got {tuple(x0.shape)}.")
    if len(grid) < 3 or float(grid.sigma[-1]) != 0:
        raise ValueError(
            f"A coding grid has at least 3 levels and ends clean, (1, 0); got {len(grid)} ending at sigma = "
            f"{float(grid.sigma[-1]):.6g}."
        )
    if rule not in RULES:
        raise ValueError(nearest("rule", rule, RULES))
    if not 4 <= search <= MAX_SEARCH or section < 1:
        raise ValueError(
            f"The codec needs 4 <= search <= {MAX_SEARCH} and section >= 1 byte; got search = {search} and "
            f"section = {section}."
        )


def encode(
    denoiser: Denoiser,
    x0: Tensor,
    grid: Level,
    *,
    model: str,
    seed: int = 0,
    label: Tensor | None = None,
    lossless: bool = False,
    rule: str = "greedy",
    search: int = 18,
    section: int = 256,
    watch: Callable[[Cost], None] = lambda cost: None,
) -> Encoded:
    """Code a batch of images into one file.

    Arguments:
        denoiser: Any denoiser; it is asked at the grid's levels rounded to float32.
        x0: Images on the 256 codes in [-1, 1], float32, shape (B, C, H, W).
        grid: Levels from noisy to clean, shape (N + 1,); a few dozen steps of equal rate, see `rate.equal_rate`.
        model: Identity of the denoiser, e.g. `container.fingerprint(module)`.
        seed: Seed of the shared randomness, in [0, 2^64).
        label: int64 (B,), or None; stored in the file.
        lossless: Append the exact pixel codes.
        rule: "greedy", or "exact" for samples of the true posterior, see `channel`.
        search: log2 of the candidates a chunk may search: more makes larger chunks, which cost less over their KL; time
            grows with 2^search.
        section: Bytes after which a section is closed at the next step: the granularity of prefixes. Each costs 10
            bytes and the coder's flush of up to 4.
        watch: Called with the cost of every step.

    Returns:
        The file and the cost of every step. Bits are the information of the coded symbols; the file adds the header
        and the sections' frames.

    Raises:
        ImportError: If the extra `coding` is not installed.
        ValueError: For images, a grid or options out of range.
    """
    _check(x0, grid, rule, search, section)
    if not 0 <= seed < 2**64:
        raise ValueError(f"The seed of a file lies in [0, 2^64); got {seed}.")
    entropy_coder()
    shape = (x0.shape[0], x0.shape[1], x0.shape[2], x0.shape[3])
    header = Header(model, seed, shape, stored(grid), label, lossless, rule, search)
    kernels, steps = Kernel.chain(header.grid), len(grid) - 2
    data, costs = bytearray(header.pack()), []
    x, rates = _start(header, x0.device), [FIRST] * len(x0)
    writer, held = Writer(), 0
    with torch.no_grad():
        for i in range(steps):
            hat = denoiser(x, header.grid[i], label).x0
            std = float((0.5 * kernels.log_var_small[i]).exp())
            delta = (x0 - hat) * (float(kernels.x0[i]) / std)
            z, bits, kl, chunks, rates = send(writer, Shared(seed, i, x0.device), delta, header, rates)
            x = _move(kernels[i], hat, x, z)
            held += 1
            payload = writer.payload()
            if len(payload) >= section or held == 255 or i == steps - 1:
                data += Section(held, payload).pack()
                writer, held = Writer(), 0
            costs.append(Cost(i, bits, kl, chunks, len(data) + (len(payload) if held else 0)))
            watch(costs[-1])
        if lossless:
            hat = denoiser(x, header.grid[steps], label).x0
            payload, bits = send_pixels(to_uint8(x0).cpu(), hat)
            data += Section(1, payload).pack()
            costs.append(Cost(steps, bits, bits, len(x0), len(data)))
            watch(costs[-1])
    return Encoded(bytes(data), costs)


def decode(data: bytes, denoiser: Denoiser, *, model: str, device: torch.device | str = "cpu") -> Iterator[Decoded]:
    """Decode a file or any prefix of one, yielding after every step.

    Arguments:
        data: The bytes, cut anywhere after the header.
        denoiser: The one that encoded.
        model: Identity of the denoiser, as given to `encode`.
        device: Device of the denoiser.

    Yields:
        First the state before anything was received, then one per step up to the last whole section.

    Raises:
        CorruptFileError: If the file was changed.
        WrongModelError: If it was made with another model.
        ImportError: If the extra `coding` is not installed.
    """
    entropy_coder()
    header, start = Header.unpack(data, model)
    return _walk(data, start, header, denoiser, torch.device(device))


def _walk(data: bytes, start: int, header: Header, denoiser: Denoiser, device: torch.device) -> Iterator[Decoded]:
    grid, kernels = header.grid, Kernel.chain(header.grid)
    label = None if header.label is None else header.label.to(device)
    steps = len(grid) - 2
    x, rates, i = _start(header, device), [FIRST] * header.shape[0], 0

    def here(codes: Tensor | None = None) -> Decoded:
        complete = codes is not None or (i == steps and not header.lossless)
        return Decoded(i, State(x, grid[i], hat), grid[i:], codes, complete)

    with torch.no_grad():
        hat = denoiser(x, grid[0], label).x0
    yield here()
    for section in sections(data, start):
        reader = None
        for _ in range(section.steps):
            if i == steps and not header.lossless:
                raise CorruptFileError(f"The file holds more than the {steps} steps of its own grid.")
            if i == steps:
                yield here(receive_pixels(section.payload, hat))
                return
            reader = reader or Reader(section.payload)
            with torch.no_grad():
                z, rates = receive(reader, Shared(header.seed, i, device), header, rates)
                x = _move(kernels[i], hat, x, z)
                i += 1
                hat = denoiser(x, grid[i], label).x0
            yield here()


def finish(
    decoded: Decoded,
    denoiser: Denoiser,
    sampler: Sampler,
    *,
    noise: Callable[[int], Tensor],
    label: Tensor | None = None,
) -> Tensor:
    """Let a sampler walk the rest of the grid from a received state: the picture of a prefix.

    Arguments:
        decoded: State that `decode` returned.
        denoiser: The one that decoded.
        sampler: Ancestral for a plausible picture, an ODE sampler for the most likely path.
        noise: step -> unit normal noise, for stochastic samplers.
        label: int64 (B,), or None.

    Returns:
        Clean images, shape (B, C, H, W); x0-hat itself where nothing is left to walk.
    """
    image = decoded.state.x0
    with torch.no_grad():
        for state in sampler(denoiser, decoded.state.x, decoded.rest, noise=noise, label=label):
            image = state.x
    return image
