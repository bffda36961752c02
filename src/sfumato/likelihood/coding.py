"""A progressive codec made of a denoiser: any prefix of the file is a coarser picture.

DDPM's Algorithms 3 and 4 send x_T, x_{T-1}, ... each from q(x_s | x_t, x0), which the receiver expects from
p(x_s | x_t) = N(k.x0 D(x_t) + k.xt x_t, beta-tilde): a shift of the mean by ``k.x0 (x0 - D(x_t))`` at equal variance,
which `channel` sends for about its KL. Stopped at level t, the receiver shows x0-hat = D(x_t), or lets any sampler
finish from x_t (`finish`): ancestral for a plausible picture, an ODE sampler for a deterministic one.

Of every image and step a file holds

    rate       the KL in half octaves, coded against the step before; it sets the chunks and the law of an index
    indices    one per chunk: its octave by the law of the channel's rule, and raw bits within it

and, if lossless, at the end the pixel codes under a discretised Gaussian around the last x0-hat whose scale is sent.

Both sides must run the same arithmetic: the same model on the same kind of machine, device and thread count, with the
batch as it was coded. Where they differ in last bits the progressive part degrades no more than x0-hat does, for
nothing in it is decoded with the help of the model's output; the lossless part rounds the mean to 1/16 of a code
before use, notices a slip by its checksum, and refuses.

Entropy coding is constriction's (extra `coding`).

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, Algorithms 3 and 4.
    https://arxiv.org/abs/2006.11239
    Theis, Salimans, Hoffman, Mentzer. Lossy Compression with Gaussian Diffusion. 2022 (DiffC).
    https://arxiv.org/abs/2206.08889
    Bamler. Understanding Entropy Coding With Asymmetric Numeral Systems. 2022. https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.core import noise
from sfumato.core.denoiser import Denoiser, Sampler, State
from sfumato.core.find import nearest
from sfumato.core.images import to_uint8
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.likelihood.channel import MAX_SEARCH, RULES, Search, Shared, hadamard, octaves, smooth
from sfumato.likelihood.container import CorruptFileError, Header, Section, sections, stored
from sfumato.likelihood.rate import CODES
from sfumato.likelihood.vlb import BITS

RATES = 64  # rate symbol r > 0 stands for 2^(r / 2 - 8) bits: up to 2^23.5; 0 for none
FIRST = 28  # the first rate is coded against 2^6 bits
SCALES = 64  # scale symbol k stands for 2^(k / 4 - 6) codes
_NEAR = np.rint(65536 * 0.35 ** np.abs(np.arange(-RATES, RATES + 1))).clip(1)  # frequencies of a change of rate


class Cost(NamedTuple):
    """What one step cost: its index, bits spent and KL along the walk per image (B,), and the file's bytes so far."""

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
    """What a receiver has after a step.

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


def _constriction() -> ModuleType:
    try:
        import constriction
    except ImportError:
        raise ImportError(
            "Coding images to files needs the entropy coder constriction: pip install 'sfumato[coding]'. "
            "Rates without files need nothing: see likelihood.rate."
        ) from None
    return constriction


class _Writer:
    """A range coder that also counts the information of what it wrote."""

    def __init__(self) -> None:
        self.models = _constriction().stream.model
        self.coder = _constriction().stream.queue.RangeEncoder()

    def symbol(self, value: int, frequencies: np.ndarray) -> float:
        if len(frequencies) == 1:  # constriction has no alphabet of one
            return 0.0
        self.coder.encode(value, self.models.Categorical(frequencies / frequencies.sum(), perfect=False))
        return float(np.log2(frequencies.sum() / frequencies[value]))

    def raw(self, value: int, size: int) -> float:
        if size > 1:
            self.coder.encode(value, self.models.Uniform(size))
        return math.log2(size)

    def payload(self) -> bytes:
        return self.coder.get_compressed().astype("<u4").tobytes()


class _Reader:
    """The mirror image of `_Writer`."""

    def __init__(self, payload: bytes) -> None:
        self.models = _constriction().stream.model
        self.coder = _constriction().stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))

    def symbol(self, frequencies: np.ndarray) -> int:
        if len(frequencies) == 1:
            return 0
        return int(self.coder.decode(self.models.Categorical(frequencies / frequencies.sum(), perfect=False)))

    def raw(self, size: int) -> int:
        return int(self.coder.decode(self.models.Uniform(size))) if size > 1 else 0


@dataclass(frozen=True)
class _Layout:
    """How a rate symbol cuts a rotated image of `size` elements: chunks of `part`, padded to m, `nats` of KL each."""

    size: int
    chunks: int
    part: int
    m: int
    nats: float
    count: int

    @classmethod
    def of(cls, symbol: int, size: int, header: Header) -> _Layout:
        rule = RULES[header.rule]
        total = 2 ** (symbol / 2 - 8) / BITS if symbol else 0.0
        part = math.ceil(size / min(size, max(1, math.ceil(total / rule.capacity(header.search) - 1e-6))))
        chunks = math.ceil(size / part)
        return cls(size, chunks, part, smooth(part), total / chunks, rule.count(total / chunks, header.search))

    def cut(self, turned: Tensor) -> Tensor:
        """Return the chunks of a rotated image, padded with zeros: shape (chunks, m)."""
        whole = pad(turned, (0, self.chunks * self.part - self.size))
        return pad(whole.reshape(self.chunks, self.part), (0, self.m - self.part))

    def join(self, chunks: Tensor) -> Tensor:
        """Undo `cut`, shape (size,)."""
        return chunks[:, : self.part].flatten()[: self.size]


def _turn(flat: Tensor, signs: Tensor) -> Tensor:
    """Rotate images (B, d), padded to the signs' power of two."""
    return hadamard(pad(flat.float(), (0, signs.shape[1] - flat.shape[1])) * signs)


def _power_of_two(d: int) -> int:
    return 1 << (d - 1).bit_length()


def _start(header: Header, device: torch.device) -> Tensor:
    """Return x_T, which both sides draw from the prior N(0, (alpha^2 + sigma^2) I)."""
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
    watch: Callable[[Cost], None] | None = None,
) -> Encoded:
    """Code a batch of images into one file.

    Arguments:
        denoiser: Any denoiser; it is asked at the grid's levels rounded to float32.
        x0: Images on the 256 codes in [-1, 1], float32, shape (B, C, H, W).
        grid: Levels from noisy to clean, shape (N + 1,); a few dozen steps of equal rate, see `rate.equal_rate`.
        model: Identity of the denoiser, e.g. `container.fingerprint(module)`.
        seed: Of the shared randomness.
        label: int64 (B,), or None; stored in the file.
        lossless: Append the exact pixel codes.
        rule: "greedy", or "exact" for samples of the true posterior, see `channel`.
        search: log2 of the candidates a chunk may search: more makes larger chunks, which cost less over their KL; time
            grows with 2^search.
        section: Bytes after which a section is closed at the next step: the granularity of prefixes. Each costs 10
            bytes and the coder's flush of up to 4.
        watch: Called after every step, for progress.

    Returns:
        The file and the cost of every step. Bits are the information of the coded symbols; the file adds the header
        and the sections' frames.

    Raises:
        ImportError: If the extra `coding` is not installed.
        ValueError: For images, a grid or options out of range.
    """
    _check(x0, grid, rule, search, section)
    _constriction()
    shape = (x0.shape[0], x0.shape[1], x0.shape[2], x0.shape[3])
    header = Header(model, seed, shape, stored(grid), label, lossless, rule, search)
    kernels, steps = Kernel.chain(header.grid), len(grid) - 2
    data, costs = bytearray(header.pack()), []
    x, rates = _start(header, x0.device), [FIRST] * len(x0)
    writer, held = _Writer(), 0
    with torch.no_grad():
        for i in range(steps):
            hat = denoiser(x, header.grid[i], label).x0
            std = float((0.5 * kernels.log_var_small[i]).exp())
            delta = (x0 - hat) * (float(kernels.x0[i]) / std)
            z, bits, kl, chunks, rates = _send(writer, Shared(seed, i, x0.device), delta, header, rates)
            x = _move(kernels[i], hat, x, z)
            held += 1
            payload = writer.payload()
            if len(payload) >= section or held == 255 or i == steps - 1:
                data += Section(held, payload).pack()
                writer, held = _Writer(), 0
            costs.append(Cost(i, bits, kl, chunks, len(data) + (len(payload) if held else 0)))
            if watch is not None:
                watch(costs[-1])
        if lossless:
            hat = denoiser(x, header.grid[steps], label).x0
            payload, bits = _send_codes(to_uint8(x0).cpu(), hat)
            data += Section(1, payload).pack()
            costs.append(Cost(steps, bits, bits, len(x0), len(data)))
            if watch is not None:
                watch(costs[-1])
    return Encoded(bytes(data), costs)


def _send(
    writer: _Writer, shared: Shared, delta: Tensor, header: Header, rates: list[int]
) -> tuple[Tensor, Tensor, Tensor, int, list[int]]:
    """Code one step of a batch; return (z, bits, KL in bits, chunks, rate symbols)."""
    d = delta[0].numel()
    size, found, samples, chunks = _power_of_two(d), [], [], 0
    kl = 0.5 * delta.flatten(1).square().sum(1).to("cpu", torch.float64) * BITS
    bits = torch.zeros(len(delta), dtype=torch.float64)
    rule, searches = RULES[header.rule], dict[tuple[int, int], Search]()
    signs = shared.signs(len(delta), size)
    for image, turned in enumerate(_turn(delta.flatten(1), signs)):
        rate = float(kl[image])
        symbol = min(RATES - 1, round(2 * math.log2(rate) + 16)) if rate > 2**-7.5 else 0
        layout = _Layout.of(symbol, size, header)
        if (layout.m, layout.count) not in searches:
            searches[layout.m, layout.count] = Search(shared, rule, layout.m, layout.count)
        index = searches[layout.m, layout.count].index(layout.cut(turned))
        bits[image] += writer.symbol(symbol, _NEAR[RATES - rates[image] :][:RATES])
        law, sizes = rule.law(layout.nats, layout.count), octaves(layout.count)
        for k in index.tolist():
            octave = k.bit_length() - 1
            bits[image] += writer.symbol(octave, law) + writer.raw(k - (1 << octave), sizes[octave])
        samples.append(layout.join(shared.candidates(index, layout.m)))
        found.append(symbol)
        chunks += layout.chunks
    z = (hadamard(torch.stack(samples)) * signs)[:, :d].reshape(delta.shape)
    return z, bits, kl, chunks, found


def _receive(reader: _Reader, shared: Shared, header: Header, rates: list[int]) -> tuple[Tensor, list[int]]:
    """Decode one step of a batch; return (z, rate symbols)."""
    d = math.prod(header.shape[1:])
    size, found, samples = _power_of_two(d), [], []
    for image in range(header.shape[0]):
        symbol = reader.symbol(_NEAR[RATES - rates[image] :][:RATES])
        layout = _Layout.of(symbol, size, header)
        law, sizes = RULES[header.rule].law(layout.nats, layout.count), octaves(layout.count)
        index = []
        for _ in range(layout.chunks):
            octave = reader.symbol(law)
            index.append((1 << octave) + reader.raw(sizes[octave]))
        samples.append(layout.join(shared.candidates(torch.tensor(index, device=shared.device), layout.m)))
        found.append(symbol)
    z = hadamard(torch.stack(samples)) * shared.signs(header.shape[0], size)
    return z[:, :d].reshape(header.shape), found


def _expected(hat: Tensor) -> np.ndarray:
    """Return x0-hat in codes, rounded to 1/16 so that last bits do not matter, float64 (B, d)."""
    codes = (hat.clamp(-1, 1).flatten(1).to("cpu", torch.float64) + 1) * CODES
    return ((codes * 16).round() / 16).numpy()


def _send_codes(codes: Tensor, hat: Tensor) -> tuple[bytes, Tensor]:
    """Code pixel codes around x0-hat; return (payload, bits per image)."""
    writer, mean, bits = _Writer(), _expected(hat), []
    family = writer.models.QuantizedGaussian(0, 255)
    for image, truth in enumerate(codes.flatten(1).numpy().astype(np.int32)):
        rms = float(np.sqrt(np.mean((truth - mean[image]) ** 2)))
        k = min(SCALES - 1, max(0, round(4 * (math.log2(max(rms, 1e-3)) + 6))))
        before = writer.coder.num_bits()
        writer.symbol(k, np.ones(SCALES))
        writer.coder.encode(truth, family, mean[image], np.full(len(truth), _scale(k)))
        bits.append(float(writer.coder.num_bits() - before))
    digest = np.frombuffer(zlib.crc32(codes.numpy().tobytes()).to_bytes(4, "little"), np.uint8)
    return digest.tobytes() + writer.payload(), torch.tensor(bits, dtype=torch.float64)


def _scale(symbol: int) -> float:
    return float(2 ** (symbol / 4 - 6))


def _receive_codes(payload: bytes, hat: Tensor) -> Tensor:
    """Decode pixel codes, uint8, the shape of x0-hat."""
    reader, mean, images = _Reader(payload[4:]), _expected(hat), []
    family = reader.models.QuantizedGaussian(0, 255)
    for row in mean:
        scale = _scale(reader.symbol(np.ones(SCALES)))
        images.append(reader.coder.decode(family, row, np.full(len(row), scale)))
    codes = np.stack(images).astype(np.uint8).reshape(hat.shape)
    if zlib.crc32(codes.tobytes()).to_bytes(4, "little") != payload[:4]:
        raise CorruptFileError(
            "The exact pixels do not match their checksum: this machine's arithmetic differs from the encoder's. "
            "The progressive picture is usable; decode the exact one on the kind of machine that encoded it."
        )
    return torch.from_numpy(codes)


def decode(data: bytes, denoiser: Denoiser, *, model: str, device: torch.device | str = "cpu") -> Iterator[Decoded]:
    """Decode a file or any prefix of one, yielding after every step.

    Arguments:
        data: The bytes, cut anywhere after the header.
        denoiser: The one that encoded.
        model: Its identity, as given to `encode`.
        device: Where to run.

    Yields:
        First the state before anything was received, then one per step up to the last whole section.

    Raises:
        CorruptFileError: If the file was changed.
        WrongModelError: If it was made with another model.
        ImportError: If the extra `coding` is not installed.
    """
    _constriction()
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
                yield here(_receive_codes(section.payload, hat))
                return
            reader = reader or _Reader(section.payload)
            with torch.no_grad():
                z, rates = _receive(reader, Shared(header.seed, i, device), header, rates)
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
        decoded: From `decode`.
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
