"""One step of the codec for a batch: a shift of the mean becomes symbols, and symbols become a sample.

Of every image a step holds

    rate       the KL in half octaves, coded against the step before; it sets the chunks and the law of an index
    indices    one per chunk: its octave by the law of the channel's rule, and raw bits within it

Sender and receiver rotate (see `channel`), so a chunk is a stretch of the rotated image; images whose size is no power
of two are padded with zeros, which cost no KL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.likelihood.codec.channel import RULES, Search, Shared, hadamard, octaves, smooth
from sfumato.likelihood.codec.container import Header
from sfumato.likelihood.codec.entropy import Reader, Writer
from sfumato.likelihood.vlb import BITS

RATES = 64  # rate symbol r > 0 stands for 2^(r / 2 - 8) bits: up to 2^23.5; 0 for none
FIRST = 28  # the first rate is coded against 2^6 bits
_NEAR = np.rint(65536 * 0.35 ** np.abs(np.arange(-RATES, RATES + 1))).clip(1)  # frequencies of a change of rate


@dataclass(frozen=True)
class Layout:
    """The cut of a rotated image of `size` elements at a rate: chunks of `part`, padded to m, `nats` of KL each."""

    size: int
    chunks: int
    part: int
    m: int
    nats: float
    count: int

    @classmethod
    def of(cls, symbol: int, size: int, header: Header) -> Layout:
        """Return the layout of a rate symbol for images of `size` elements."""
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


def send(
    writer: Writer, shared: Shared, delta: Tensor, header: Header, rates: list[int]
) -> tuple[Tensor, Tensor, Tensor, int, list[int]]:
    """Code one step of a batch.

    Arguments:
        writer: Range coder that takes the symbols.
        shared: Randomness that sender and receiver draw alike at this step.
        delta: The shift of the mean in units of the step's standard deviation, shape (B, C, H, W).
        header: For the rule and the search.
        rates: The rate symbols of the step before, one per image.

    Returns:
        The unit samples z, the shape of `delta`; bits spent and KL in bits per image, float64 (B,); the number of
        chunks; and the rate symbols.
    """
    d = delta[0].numel()
    size, found, samples, chunks = _power_of_two(d), [], [], 0
    kl = 0.5 * delta.flatten(1).square().sum(1).to("cpu", torch.float64) * BITS
    bits = torch.zeros(len(delta), dtype=torch.float64)
    rule, searches = RULES[header.rule], dict[tuple[int, int], Search]()
    signs = shared.signs(len(delta), size)
    for image, turned in enumerate(_turn(delta.flatten(1), signs)):
        rate = float(kl[image])
        symbol = min(RATES - 1, round(2 * math.log2(rate) + 16)) if rate > 2**-7.5 else 0
        layout = Layout.of(symbol, size, header)
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


def receive(reader: Reader, shared: Shared, header: Header, rates: list[int]) -> tuple[Tensor, list[int]]:
    """Decode one step of a batch and return (z, rate symbols), those of `send`; arguments as there."""
    d = math.prod(header.shape[1:])
    size, found, samples = _power_of_two(d), [], []
    for image in range(header.shape[0]):
        symbol = reader.symbol(_NEAR[RATES - rates[image] :][:RATES])
        layout = Layout.of(symbol, size, header)
        law, sizes = RULES[header.rule].law(layout.nats, layout.count), octaves(layout.count)
        index = []
        for _ in range(layout.chunks):
            octave = reader.symbol(law)
            index.append((1 << octave) + reader.raw(sizes[octave]))
        samples.append(layout.join(shared.candidates(torch.tensor(index, device=shared.device), layout.m)))
        found.append(symbol)
    z = hadamard(torch.stack(samples)) * shared.signs(header.shape[0], size)
    return z[:, :d].reshape(header.shape), found
