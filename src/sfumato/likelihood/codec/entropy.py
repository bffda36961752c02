"""Symbols to bytes and back: the range coder of the codec, and the exact pixels that may end a file.

Entropy coding is constriction's (extra `coding`): a range coder in words of 32 bits over integer frequencies. Laws are
rounded to integers before they reach it, so that sender and receiver hold the same ones.

The exact pixels are coded under a discretised Gaussian around x0-hat whose scale is sent per image. The mean is rounded
to 1/16 of a code, so that last bits of the arithmetic rarely matter; where they do the checksum says so.

References:
    Bamler. Understanding Entropy Coding With Asymmetric Numeral Systems. 2022. https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core.optional import optional
from sfumato.likelihood.codec.container import CorruptFileError
from sfumato.likelihood.codec.rate import CODES

SCALES = 64  # scale symbol k stands for 2^(k / 4 - 6) codes


def entropy_coder() -> Any:
    """Return constriction, or raise `ImportError` naming the extra."""
    return optional("constriction", "coding", "Coding images to files", ImportError)


class Writer:
    """A range coder that also counts the information of what it wrote."""

    def __init__(self) -> None:
        self.models = entropy_coder().stream.model
        self.coder = entropy_coder().stream.queue.RangeEncoder()

    def symbol(self, value: int, frequencies: np.ndarray) -> float:
        """Write an integer under a law of frequencies; return its information in bits."""
        if len(frequencies) == 1:  # constriction has no alphabet of one
            return 0.0
        self.coder.encode(value, self.models.Categorical(frequencies / frequencies.sum(), perfect=False))
        return float(np.log2(frequencies.sum() / frequencies[value]))

    def raw(self, value: int, size: int) -> float:
        """Write an integer in [0, size), all equally likely; return its information in bits."""
        if size > 1:
            self.coder.encode(value, self.models.Uniform(size))
        return math.log2(size)

    def payload(self) -> bytes:
        """Return what has been written, whole 32-bit words."""
        return self.coder.get_compressed().astype("<u4").tobytes()


class Reader:
    """The mirror image of `Writer`; of bytes that no writer made it makes a `CorruptFileError` or other symbols."""

    def __init__(self, payload: bytes) -> None:
        if len(payload) % 4:
            raise CorruptFileError(f"A section of {len(payload)} bytes is no whole number of words.")
        self.models = entropy_coder().stream.model
        self.coder = entropy_coder().stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))

    def symbol(self, frequencies: np.ndarray) -> int:
        """Read an integer under a law of frequencies."""
        if len(frequencies) == 1:
            return 0
        return self._read(self.models.Categorical(frequencies / frequencies.sum(), perfect=False))

    def raw(self, size: int) -> int:
        """Read an integer in [0, size)."""
        return self._read(self.models.Uniform(size)) if size > 1 else 0

    def _read(self, law: Any) -> int:
        return int(self.read(law))

    def read(self, law: Any, *parameters: np.ndarray) -> Any:
        """Decode a symbol under a law, or an array of them under a family of laws with its parameters."""
        try:
            return self.coder.decode(law, *parameters)
        except AssertionError as error:  # the coder's word for data that none of its encoders can have made
            raise CorruptFileError(f"A section holds no symbols of this format: {error}") from None


def _expected(hat: Tensor) -> np.ndarray:
    """Return x0-hat in codes, rounded to 1/16 so that last bits do not matter, float64 (B, d)."""
    codes = (hat.clamp(-1, 1).flatten(1).to("cpu", torch.float64) + 1) * CODES
    return ((codes * 16).round() / 16).numpy()


def send_pixels(codes: Tensor, hat: Tensor) -> tuple[bytes, Tensor]:
    """Code pixel codes around x0-hat; return (payload, bits per image)."""
    writer, mean, bits = Writer(), _expected(hat), []
    family = writer.models.QuantizedGaussian(0, 255)
    for image, truth in enumerate(codes.flatten(1).numpy().astype(np.int32)):
        rms = float(np.sqrt(np.mean((truth - mean[image]) ** 2)))
        k = min(SCALES - 1, max(0, round(4 * (math.log2(max(rms, 1e-3)) + 6))))
        before = writer.coder.num_bits()
        writer.symbol(k, np.ones(SCALES))
        writer.coder.encode(truth, family, mean[image], np.full(len(truth), _scale(k)))
        bits.append(float(writer.coder.num_bits() - before))
    return _digest(codes.numpy()) + writer.payload(), torch.tensor(bits, dtype=torch.float64)


def _digest(codes: np.ndarray) -> bytes:
    return zlib.crc32(codes.tobytes()).to_bytes(4, "little")


def _scale(symbol: int) -> float:
    return float(2 ** (symbol / 4 - 6))


def receive_pixels(payload: bytes, hat: Tensor) -> Tensor:
    """Decode pixel codes, uint8, the shape of x0-hat."""
    reader, mean, images = Reader(payload[4:]), _expected(hat), []
    family = reader.models.QuantizedGaussian(0, 255)
    for row in mean:
        scale = _scale(reader.symbol(np.ones(SCALES)))
        images.append(reader.read(family, row, np.full(len(row), scale)))
    codes = np.stack(images).astype(np.uint8).reshape(hat.shape)
    if _digest(codes) != payload[:4]:
        raise CorruptFileError(
            "The exact pixels do not match their checksum: this machine's arithmetic differs from the encoder's. "
            "The progressive picture is usable; decode the exact one on the kind of machine that encoded it."
        )
    return torch.from_numpy(codes)
