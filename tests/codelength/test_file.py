"""Files of a run: hostile ones are refused before anything is computed, and crafted ones never crash the decoder."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor

from sfumato.codelength import file as codec
from sfumato.codelength.chain import Chain
from sfumato.codelength.file import Coded, Model, check_header, decode_file, encode_images, picture_of, read_images
from sfumato.core.exact import Gaussian
from sfumato.core.gauge import flow, ve, vp
from sfumato.core.images import to_uint8
from sfumato.core.level import Level
from sfumato.data.dataset import Dataset
from sfumato.likelihood.codec.container import (
    LADDER,
    CorruptFileError,
    Header,
    Section,
    WrongModelError,
    ladder,
    sections,
    stored,
)
from sfumato.likelihood.codec.rate import cheapest

pytest.importorskip("constriction")

SIDE = 6
TRUTH = Gaussian(torch.zeros(SIDE * SIDE), 0.6 / (1 + torch.arange(SIDE * SIDE).float()) ** 1.2)
GRID = ladder(ve, [34, 16, 8, 0, -8, -16, -28])


def model(classes: int = 0, identity: str = "toy") -> Model:
    shape = SimpleNamespace(channels=1, height=SIDE, width=SIDE, classes=tuple(map(str, range(classes))))
    run = SimpleNamespace(
        plan=SimpleNamespace(shape=shape, image=(1, SIDE, SIDE)), recipe=None, classes=shape.classes, path=Path("toy")
    )
    return Model(TRUTH, identity, run, torch.device("cpu"))  # type: ignore[arg-type]


def pictures(count: int = 2) -> Tensor:
    n = torch.randn(count, SIDE * SIDE, generator=torch.Generator().manual_seed(3))
    return to_uint8((TRUTH.variances.sqrt() * n).clamp(-1, 1).reshape(count, 1, SIDE, SIDE))


@pytest.fixture(scope="module")
def coded() -> Coded:
    return encode_images(model(), pictures(), GRID, lossless=True, search=10, section=1)


def test_a_ladder_is_stored_in_a_byte_a_level() -> None:
    for path in (ve, flow, vp):
        grid = ladder(path, [60, 59, 20, -56])
        header = Header("m", 1, (1, 1, 2, 2), grid, None, False, "greedy", 8)
        packed = header.pack()
        assert packed[9] & LADDER and len(packed) == 43 + 3 + 3 + 4
        again, end = Header.unpack(packed, "m")
        assert end == len(packed)
        assert torch.equal(again.grid.alpha, stored(grid).alpha) and torch.equal(again.grid.sigma, stored(grid).sigma)
        torch.testing.assert_close(again.grid.nsr, grid.nsr, rtol=1e-12, atol=0)
    other = Level.of(1.0, [10.0, 1.0, 0.3, 0.0])  # on no ladder: two floats a level
    packed = Header("m", 1, (1, 1, 2, 2), other, None, False, "greedy", 8).pack()
    assert not packed[9] & LADDER and len(packed) == 43 + 8 * 4 + 4
    torch.testing.assert_close(Header.unpack(packed, "m")[0].grid.sigma, other.sigma, rtol=1e-7, atol=0)


def test_the_cheapest_walk_is_the_cheapest() -> None:
    nsr = torch.exp2(-torch.arange(9).double())
    levels = Level(torch.ones_like(nsr), nsr)
    mse = torch.tensor([1.0, 1.0, 0.9, 0.5, 0.2, 0.19, 0.1, 0.02, 0.02], dtype=torch.float64)
    snr = levels.log_snr.exp()

    def total(path: list[int]) -> float:
        return sum(float((snr[j] - snr[i]) * mse[i]) for i, j in zip(path, path[1:]))

    from itertools import combinations

    for steps in (1, 3, 5, 8):
        best = min(total([0, *middle, 8]) for middle in combinations(range(1, 8), steps - 1))
        assert total(cheapest(levels, mse, steps)) == pytest.approx(best)
    with pytest.raises(ValueError, match="1 to 8 steps"):
        cheapest(levels, mse, 9)


def test_costs_are_told_step_by_step(coded: Coded) -> None:
    rows = coded.rows()
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6, "pixels"]
    assert rows[-1]["file bytes"] == len(coded.data) and rows[-1]["RMSE"] == 0
    for row, cost in zip(rows, coded.costs):
        assert row["spent bits"] == pytest.approx(float(cost.bits.sum()), abs=0.06)
    rmse = [float(r["RMSE"] or 0) for r in rows]
    assert rmse[0] > rmse[5] > 0
    formula, walked = (float(rows[5][c] or 0) for c in ("formula b/d", "predicted b/d"))
    assert walked == pytest.approx(formula, rel=0.25)  # two walks of the same law
    frames = sum(len(s.pack()) - len(s.payload) for s in sections(coded.data, coded.header))
    assert coded.frames == frames == 10 * 7
    counted = [float(r["over %"] or 0) for r in rows[:6] if float(r["predicted b/d"] or 0) > 0.1]
    assert coded.overhead() == pytest.approx(max(counted) / 100, abs=0.01)


def test_a_prefix_is_finished_by_a_sampler(coded: Coded) -> None:
    header = check_header(model(), coded.data)
    states = list(decode_file(model(), coded.data))
    assert torch.equal(picture_of(model(), states[-1], header), pictures())
    shown = {how: picture_of(model(), states[2], header, how) for how in ("none", "ancestral", "ddim", "euler")}
    for how, image in shown.items():
        assert image.shape == (2, 1, SIDE, SIDE) and image.dtype == torch.uint8
        assert torch.equal(image, picture_of(model(), states[2], header, how))
    assert not torch.equal(shown["none"], shown["ancestral"])
    assert torch.equal(shown["ddim"], shown["euler"])  # equal on this path


def header_of(coded: Coded, **changes: object) -> bytes:
    header, start = Header.unpack(coded.data, "toy")
    return replace(header, **changes).pack() + coded.data[start:]


def test_headers_that_do_not_fit_the_run_are_refused_before_any_work(coded: Coded, monkeypatch) -> None:
    monkeypatch.setattr(codec.coding, "decode", lambda *a, **k: pytest.fail("decoding began"))
    with pytest.raises(WrongModelError, match="another|made with model"):
        decode_file(model(identity="other"), coded.data)
    for shape in ((2, 1, 7, 7), (2, 3, 6, 6), (0, 1, 6, 6), (5000, 1, 6, 6), (1 << 20, 1, 6, 6)):
        with pytest.raises(CorruptFileError, match="The header claims"):
            decode_file(model(), header_of(coded, shape=shape))
    with pytest.raises(CorruptFileError, match="names class 3"):
        decode_file(model(2), header_of(coded, label=torch.tensor([0, 3])))
    upside = Level(GRID.alpha, torch.cat((GRID.sigma[:-1].flip(0), torch.zeros(1))))
    for grid in (upside, Level(GRID.alpha, GRID.sigma * torch.nan)):
        with pytest.raises(CorruptFileError, match="from noisy to clean"):
            decode_file(model(), header_of(coded, grid=grid))


def test_crafted_payloads_with_right_checksums_never_crash(coded: Coded) -> None:
    """An attacker can compute a checksum; what then comes out is noise, or one named error."""
    start, dice = coded.header, random.Random(0)
    parts, refused = list(sections(coded.data, start)), 0
    for _ in range(60):
        made = list(parts)
        i = dice.randrange(len(made))
        body = bytearray(made[i].payload)
        for _ in range(dice.randrange(1, 9)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        size = dice.choice((len(body), len(body) // 2, 0, 3))
        made[i] = Section(dice.choice((made[i].steps, 1, 200)), bytes(body[:size]))
        data = coded.data[:start] + b"".join(s.pack() for s in made)
        try:
            *_, last = decode_file(model(), data)
            assert bool(last.state.x0.isfinite().all())
        except CorruptFileError:
            refused += 1
    assert refused > 0


def test_what_cannot_be_coded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 4096 images"):
        encode_images(model(), torch.zeros(1, 1, 5, 5, dtype=torch.uint8), GRID)
    Image.new("L", (7, 6)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match="7 x 6 and this run knows images of 6 x 6"):
        read_images([tmp_path / "wide.png"], (1, 6, 6))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="not an image"):
        read_images([tmp_path / "text.png"], (1, 6, 6))
    with pytest.raises(FileNotFoundError):
        read_images([tmp_path / "gone.png"], (1, 6, 6))
    Image.fromarray(pictures()[0, 0].numpy()).save(tmp_path / "right.png")
    assert torch.equal(read_images([tmp_path / "right.png"], (1, 6, 6)), pictures()[:1])


def test_levels_are_calibrated_once(tmp_path: Path, monkeypatch) -> None:
    own = model()
    own.run.path = tmp_path  # type: ignore[misc]
    asked: list[Chain] = []
    measure = codec.measure_bound

    def spy(denoiser, images, chain, **options):
        asked.append(chain)
        return measure(denoiser, images, chain, **options)

    data = Dataset("toy", pictures(8), None, (), "train", torch.arange(8))
    monkeypatch.setattr(codec, "measure_bound", spy)
    monkeypatch.setattr(codec, "span", lambda recipe: (0.02, 16.0))
    monkeypatch.setattr(codec, "own_gauge", lambda recipe: ve)
    monkeypatch.setattr(codec, "load_data", lambda recipe, split, root: data)
    grid = codec.grid_of(own, 5)
    assert len(grid) == 7 and float(grid.sigma[0]) == 16.0 and float(grid.nsr[-2]) < 0.0225
    assert torch.equal(codec.grid_of(own, 5).sigma, grid.sigma) and len(asked) == 1
    assert len(codec.grid_of(own, 8)) == 10 and len(asked) == 1
    codec.grid_of(own, 5, near=0.1)
    assert len(asked) == 2
    with pytest.raises(ValueError, match="at least 2 steps"):
        codec.grid_of(own, 1)
