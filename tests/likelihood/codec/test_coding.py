"""The codec: what is decoded is what was sent, whole or in part, and nothing else passes for it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import grids
from sfumato.core.denoiser import Denoiser, Prediction, State
from sfumato.core.exact import Gaussian
from sfumato.core.images import to_uint8
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.likelihood.codec.coding import Decoded, Encoded, decode, encode, finish
from sfumato.likelihood.codec.container import CorruptFileError, Header, WrongModelError, fingerprint, sections, stored
from sfumato.likelihood.vlb import BITS

pytest.importorskip("constriction")

GRID = grids.logsnr(9, sigma_min=0.05, sigma_max=20.0)
STEPS = len(GRID) - 2
SIDE = 6
SPECTRUM = 0.6 / (1 + torch.arange(SIDE * SIDE).float()) ** 1.2


def smooth_basis() -> Tensor:
    """Cosines, the slowest first: pictures with large smooth shapes."""
    place = torch.arange(SIDE).double() + 0.5
    one = torch.stack([torch.cos(torch.pi * k * place / SIDE) for k in range(SIDE)], 1)
    one = one / one.norm(dim=0)
    order = torch.tensor(sorted(range(SIDE * SIDE), key=lambda k: (k // SIDE) ** 2 + (k % SIDE) ** 2))
    return torch.kron(one, one)[:, order].float()


MODEL = Gaussian(torch.zeros(SIDE * SIDE), SPECTRUM, smooth_basis())


def pictures(count: int = 3) -> Tensor:
    n = torch.randn(count, SIDE * SIDE, generator=torch.Generator().manual_seed(4))
    x = ((SPECTRUM.sqrt() * n) @ MODEL.basis.T).reshape(count, 1, SIDE, SIDE)
    return (x.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    return encode(MODEL, pictures(), GRID, model="toy", seed=7, lossless=True, search=12, section=1)


def rmse(found: Decoded) -> float:
    return float((found.state.x0 - pictures()).square().mean().sqrt())


def starts(data: bytes) -> list[int]:
    """Where the sections of a file begin, and its end."""
    _, at = Header.unpack(data, "toy")
    found = [at]
    for section in sections(data, at):
        found.append(found[-1] + len(section.pack()))
    return found


def test_the_exact_pixels_come_back(encoded: Encoded) -> None:
    *_, last = decode(encoded.data, MODEL, model="toy")
    assert last.complete and last.codes is not None
    assert torch.equal(last.codes, to_uint8(pictures()))


def test_encoding_is_a_function_of_its_arguments(encoded: Encoded) -> None:
    options = {"model": "toy", "lossless": True, "search": 12, "section": 1}
    assert encode(MODEL, pictures(), GRID, seed=7, **options).data == encoded.data
    assert encode(MODEL, pictures(), GRID, seed=8, **options).data != encoded.data


def test_any_prefix_is_a_coarser_picture(encoded: Encoded) -> None:
    data, at = encoded.data, starts(encoded.data)
    assert len(at) == STEPS + 2 and at[-1] == len(data)
    errors = []
    for number, place in enumerate(at[:-1]):
        *_, last = decode(data[:place], MODEL, model="toy")
        assert last.step == number and last.codes is None and not last.complete
        errors.append(rmse(last))
        for cut in (place + 1, (place + at[number + 1]) // 2, at[number + 1] - 1):
            *_, same = decode(data[:cut], MODEL, model="toy")
            assert same.step == number
            assert torch.equal(same.state.x, last.state.x)
    assert errors[0] > 0.2 and errors[-1] < 0.08
    assert sum(a > b for a, b in zip(errors, errors[1:])) >= STEPS - 1


def test_the_walk_stays_on_the_levels_of_the_forward_process(encoded: Encoded) -> None:
    """What the receiver holds at level s is distributed as alpha x0 + sigma n: the samples are those of q."""
    for found in decode(encoded.data, MODEL, model="toy"):
        level = found.state.level
        n = (found.state.x - like(level.alpha, found.state.x) * pictures()) / float(level.sigma)
        assert abs(float(n.square().mean()) - 1) < 5 * (2 / n.numel()) ** 0.5
        assert float(level.sigma) == pytest.approx(float(GRID.sigma[found.step]), rel=1e-6)


def test_the_costs_add_up_to_the_file(encoded: Encoded) -> None:
    at, costs = starts(encoded.data), encoded.costs
    assert [c.bytes for c in costs] == at[1:]
    for section, cost in zip(sections(encoded.data, at[0]), costs):
        payload = 8 * len(section.payload) - (32 if cost.step == STEPS else 0)  # the exact pixels carry a checksum
        assert -1 < payload - float(cost.bits.sum()) < 65  # the coder ends on words of 32 bits
        assert section.steps == 1


def test_the_divergence_is_that_of_the_step(encoded: Encoded) -> None:
    kernels = Kernel.chain(stored(GRID))
    found = list(decode(encoded.data, MODEL, model="toy"))
    for i, cost in enumerate(encoded.costs[:-1]):
        gain = float(kernels.x0[i] ** 2 / kernels.log_var_small[i].exp())
        square = (found[i].state.x0 - pictures()).square().flatten(1).sum(1).double()
        torch.testing.assert_close(cost.kl, 0.5 * gain * square * BITS, rtol=1e-4, atol=1e-6)


def test_bits_follow_the_divergence(encoded: Encoded) -> None:
    spent = float(sum(c.bits.sum() for c in encoded.costs[:-1]))
    predicted = float(sum(c.kl.sum() for c in encoded.costs[:-1]))
    images, chunks = 3, sum(c.chunks for c in encoded.costs[:-1])
    # an index of 12 bits carries up to 9.5 bits; a rate symbol takes two bits where steps are of equal rate, here more
    assert predicted < spent < predicted + 2.7 * chunks + 8.0 * images * STEPS


DECODE = """
import sys, pathlib, numpy as np
sys.path.insert(0, sys.argv[1])
import torch
from test_coding import MODEL
from sfumato.likelihood.codec.coding import decode
*_, last = decode(pathlib.Path(sys.argv[2]).read_bytes(), MODEL, model="toy")
np.savez(sys.argv[3], codes=last.codes.numpy(), x=last.state.x.numpy())
"""


def test_another_process_decodes_the_same(encoded: Encoded, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(encoded.data)
    arguments = [str(Path(__file__).parent), str(tmp_path / "image"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", DECODE, *arguments], check=True, capture_output=True)
    out = np.load(tmp_path / "out.npz")
    *_, last = decode(encoded.data, MODEL, model="toy")
    assert (out["codes"] == to_uint8(pictures()).numpy()).all()
    assert (out["x"] == last.state.x.numpy()).all()


def test_the_exact_rule_codes_too() -> None:
    file = encode(MODEL, pictures(), GRID, model="toy", rule="exact", search=12)
    assert Header.unpack(file.data, "toy")[0].rule == "exact"
    *_, last = decode(file.data, MODEL, model="toy")
    assert last.complete and rmse(last) < 0.08


def test_sections_can_hold_several_steps(encoded: Encoded) -> None:
    file = encode(MODEL, pictures(), GRID, model="toy", seed=7, search=12, section=10_000)
    (one,) = sections(file.data, starts(file.data)[0])
    assert one.steps == STEPS
    *_, last = decode(file.data, MODEL, model="toy")
    *_, before, _ = decode(encoded.data, MODEL, model="toy")
    assert last.complete and torch.equal(last.state.x, before.state.x)


def test_a_model_that_differs_in_last_bits_decodes_almost_the_same(encoded: Encoded) -> None:
    class Rounded:
        def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
            return Prediction(MODEL(x, level).x0 * (1 + 1e-6))

    pairs = zip(decode(encoded.data[: starts(encoded.data)[STEPS]], Rounded(), model="toy"), decode_all(encoded))
    for off, exact in pairs:
        assert float((off.state.x0 - exact.state.x0).abs().max()) < 1e-4


def decode_all(encoded: Encoded) -> list[Decoded]:
    return list(decode(encoded.data, MODEL, model="toy"))


def test_exact_pixels_are_refused_when_the_arithmetic_differs(encoded: Encoded) -> None:
    class Shifted:
        def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
            return Prediction(MODEL(x, level).x0 + 0.01)

    with pytest.raises(CorruptFileError, match="arithmetic differs"):
        list(decode(encoded.data, Shifted(), model="toy"))


def test_another_model_is_refused(encoded: Encoded) -> None:
    with pytest.raises(WrongModelError, match="Decode it with the checkpoint"):
        decode(encoded.data, MODEL, model="other")


def test_every_changed_byte_is_noticed(encoded: Encoded) -> None:
    data = encoded.data
    ends = starts(data)
    heads = [place + k for place in ends[:-1] for k in range(6)]
    for place in sorted({*range(0, len(data), 29), *heads[:12], *range(40)}):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(CorruptFileError):
            list(decode(bytes(damaged), MODEL, model="toy"))


@pytest.mark.parametrize("size", [0, 5, 30, 60])
def test_a_file_cut_within_its_header_is_named(encoded: Encoded, size: int) -> None:
    with pytest.raises(CorruptFileError, match="ends within its header"):
        decode(encoded.data[:size], MODEL, model="toy")


def test_other_files_and_impossible_headers_are_refused(encoded: Encoded) -> None:
    with pytest.raises(CorruptFileError, match="Not a sfumato image file"):
        decode(b"\x89PNG\r\n\x1a\n" + encoded.data, MODEL, model="toy")
    with pytest.raises(CorruptFileError, match="version 9"):
        decode(encoded.data[:8] + b"\x09" + encoded.data[9:], MODEL, model="toy")
    huge = encoded.data[:26] + struct.pack("<I", 2**31) + encoded.data[30:]
    with pytest.raises(CorruptFileError, match="claims"):
        decode(huge, MODEL, model="toy")


class Conditional:
    """One Gaussian per class; -1 has its own mean."""

    def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
        assert label is not None
        shift = 0.2 * label.float().reshape(-1, 1, 1, 1)
        return Prediction(MODEL(x - like(level.alpha, x) * shift, level).x0 + shift)


def test_labels_travel_with_the_file() -> None:
    label = torch.tensor([2, -1, 0])
    options = {"model": "toy", "search": 10}
    file = encode(Conditional(), pictures(), GRID, label=label, **options).data
    assert torch.equal(Header.unpack(file, "toy")[0].label, label)
    *_, last = decode(file, Conditional(), model="toy")
    assert rmse(last) < 0.1
    with pytest.raises(ValueError, match="Labels are classes"):
        encode(Conditional(), pictures(), GRID, label=torch.tensor([-2, 0, 0]), **options)


def test_an_oracle_costs_next_to_nothing() -> None:
    class Oracle:
        def __call__(self, x: Tensor, level: Level, label: Tensor | None = None) -> Prediction:
            return Prediction(pictures())

    file = encode(Oracle(), pictures(), GRID, model="oracle", search=12)
    assert all(float(c.kl.sum()) == 0 for c in file.costs)
    assert float(file.costs[0].bits.sum()) > 0  # saying "nothing" once has a price
    assert all(float(c.bits.max()) < 2.1 for c in file.costs[1:])
    *_, last = decode(file.data, Oracle(), model="oracle")
    assert rmse(last) == 0


def euler(
    denoiser: Denoiser, x: Tensor, grid: Level, *, noise: Callable[[int], Tensor], label: Tensor | None = None
) -> Iterator[State]:
    """The probability flow in a few lines: keep x0-hat and the noise it implies, move the level."""
    for t, s in zip(grid, list(grid)[1:]):
        x0 = denoiser(x, t, label).x0
        x = s.noisy(x0, (x - like(t.alpha, x) * x0) / like(t.sigma, x))
        yield State(x, s, x0)


def test_a_sampler_finishes_a_prefix(encoded: Encoded) -> None:
    def silence(step: int) -> Tensor:
        raise AssertionError("a deterministic sampler asked for noise")

    found = decode_all(encoded)
    whole = finish(found[STEPS], MODEL, euler, noise=silence)
    assert torch.equal(whole, found[STEPS].state.x0)  # one step is left, and it goes to x0-hat
    half = finish(found[4], MODEL, euler, noise=silence)
    assert half.shape == (3, 1, SIDE, SIDE) and not torch.equal(half, found[4].state.x0)
    # finished pictures have the variance of pictures; x0-hat, a mean, has less
    assert float(half.var()) > float(found[4].state.x0.var())


def test_progress_is_visible(encoded: Encoded) -> None:
    seen: list[int] = []
    encode(MODEL, pictures(), GRID, model="toy", search=6, watch=lambda cost: seen.append(cost.step))
    assert seen == list(range(STEPS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "gredy"}, "Did you mean 'greedy'"),
        ({"search": 40}, "search <= 24"),
        ({"section": 0}, "section >= 1"),
        ({"grid": GRID[:-1]}, "ends clean"),
        ({"x0": torch.zeros(3, 36)}, r"shape \(B, C, H, W\)"),
    ],
)
def test_bad_options_are_refused(change: dict, message: str) -> None:
    options = {"x0": pictures(), "grid": GRID, "model": "toy", **change}
    with pytest.raises(ValueError, match=message):
        encode(MODEL, options.pop("x0"), options.pop("grid"), **options)


def test_a_missing_coder_is_explained(monkeypatch: pytest.MonkeyPatch, encoded: Encoded) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[coding\]'"):
        encode(MODEL, pictures(), GRID, model="toy")
    with pytest.raises(ImportError, match="coding"):
        decode(encoded.data, MODEL, model="toy")


def test_fingerprints_know_every_weight() -> None:
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) == fingerprint(b)
    with torch.no_grad():
        b.bias[1] += 1e-7
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a.double()) != fingerprint(nn.Linear(3, 2).double())
