"""A strip ends at the sample, shows the states it says, and an animation is the strip in time."""

from functools import partial

import pytest
import torch
from PIL import Image

from sfumato.core.exact import Gaussian
from sfumato.core.images import to_uint8
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise
from sfumato.report.save import command_in
from sfumato.report.strip import gif, strip, walk
from sfumato.samplers.ancestral import ancestral
from sfumato.samplers.euler import euler
from sfumato.sources import Diffusion

SEEDS = [3, 4, 11]
TRUTH = Gaussian(torch.linspace(-0.8, 0.8, 64), torch.full((64,), 0.01))
VE = Level.of(1.0, [80.0, 20.0, 5.0, 1.0, 0.2, 0.05, 0.0])
FLOW = Level.of([0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 0.75, 0.5, 0.25, 0.0])


def source(grid: Level = VE, sampler=euler) -> Diffusion:
    return Diffusion(TRUTH, sampler, grid, (1, 8, 8))


@pytest.mark.parametrize("sampler", [euler, partial(ancestral, variance="small")])
@pytest.mark.parametrize("grid", [VE, FLOW])
@pytest.mark.parametrize("every", [1, 2, 3, 5, 100, None])
def test_both_rows_end_at_the_sample(grid, every, sampler) -> None:
    model = source(grid, sampler)
    columns = walk(model, SEEDS, None, every)
    k, level, x, x0 = columns[-1]
    sample = model(SEEDS)
    assert torch.equal(x, sample) and torch.equal(x0, sample)
    assert k == len(grid) - 1 and float(level.sigma) == 0


@pytest.mark.parametrize("grid", [VE, FLOW])
def test_columns_are_the_states_they_name(grid) -> None:
    model = source(grid)
    states = list(model.states(SEEDS))
    columns = walk(model, SEEDS, None, 2)
    assert [k for k, *_ in columns] == sorted({*range(0, len(grid) - 1, 2), len(grid) - 1})
    start = SamplingNoise(SEEDS, (1, 8, 8)).start()
    assert torch.equal(columns[0][2], to_uint8(start))  # pure noise: sigma n on the unit circle is about n
    for k, level, x, x0 in columns[:-1]:
        assert torch.equal(x0, to_uint8(states[k].x0))
        assert float(level.nsr) == float(grid[k].nsr)
        if k:
            scale = torch.hypot(grid[k].alpha, grid[k].sigma).float()
            assert torch.equal(x, to_uint8(states[k - 1].x / scale))


def test_the_picture_holds_its_columns_in_order() -> None:
    model = source()
    picture = strip(model, SEEDS, every=2)
    columns = walk(model, SEEDS, None, 2)
    zoom, gap = 8, 3
    width = len(columns) * (8 * zoom + gap) - gap
    left = next(  # the first column of pixels from which one row of the first image can be read off
        x for x in range(picture.width - width) if _row_at(picture, x, columns[0][2][0, 0, 0], zoom) is not None
    )
    top = _row_at(picture, left, columns[0][2][0, 0, 0], zoom)
    for i, (_, _, x, x0) in enumerate(columns):
        for row, image in ((0, x[0]), (1, x0[0])):
            cell = picture.crop(_box(left, top, i, row, zoom, gap)).convert("L")
            cell = cell.resize((8, 8), Image.Resampling.NEAREST)
            assert list(cell.tobytes()) == image.flatten().tolist()


def _box(left: int, top: int, column: int, row: int, zoom: int, gap: int) -> tuple[int, int, int, int]:
    x, y = left + column * (8 * zoom + gap), top + row * (8 * zoom + gap)
    return x, y, x + 8 * zoom, y + 8 * zoom


def _row_at(picture: Image.Image, x: int, row: torch.Tensor, zoom: int) -> int | None:
    grey = picture.convert("L")
    for y in range(picture.height):
        if all(grey.getpixel((x + zoom * i, y)) == int(v) for i, v in enumerate(row)):
            return y
    return None


def test_words_name_seeds_steps_and_rows() -> None:
    words = strip(source(), SEEDS, caption="EDM.").info["Description"]
    assert words.startswith("Seeds 3..4, 11, 6 steps:") and words.endswith("the last column is the sample. EDM.")
    assert "D(x)" not in strip(source(), SEEDS, what="x").info["Description"]


def test_what_chooses_the_rows() -> None:
    both, x, x0 = (strip(source(), SEEDS, what=w) for w in ("both", "x", "x0"))
    assert x.size == x0.size and both.height > 1.7 * x.height


def test_long_walks_are_thinned_and_keep_both_ends() -> None:
    grid = Level.of(1.0, torch.cat((torch.logspace(1.9, -2, 250, dtype=torch.float64), torch.zeros(1))).tolist())
    columns = walk(source(grid), [0])
    assert len(columns) <= 20 and columns[0][0] == 0 and columns[-1][0] == 250


def test_an_animation_is_the_walk_in_time(tmp_path) -> None:
    model = source()
    last = gif(model, SEEDS, None, tmp_path / "walk.gif", every=1, seconds=0.7, hold=0.5)
    with Image.open(tmp_path / "walk.gif") as animation:
        assert animation.n_frames == len(VE)
        durations = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            durations.append(animation.info["duration"])
        final = animation.convert("RGB")
    assert durations == [100] * 6 + [500]
    assert final.size == last.size
    difference = (torch.tensor(list(final.tobytes())) - torch.tensor(list(last.tobytes()))).abs()
    assert int(difference.max()) <= 8  # a GIF has 256 colours
    assert [p.name for p in tmp_path.iterdir()] == ["walk.gif"]


def test_an_animation_has_its_title_names_and_words(tmp_path) -> None:
    bare = gif(source(), SEEDS, None, tmp_path / "bare.gif", columns=2)
    words = {"names": ["shirt", "bag", "shoe"], "title": "mine (edm)", "caption": "euler.", "command": "sfumato sample"}
    told = gif(source(), SEEDS, None, tmp_path / "told.gif", columns=2, **words)
    assert told.height > bare.height + 30  # a title, and a line below each of two rows
    assert told.info["Description"] == "mine (edm). Seeds 3..4, 11. Step 6 of 6, σ/α = 0. euler."
    assert command_in(tmp_path / "told.gif") == "sfumato sample"


def test_refusals(tmp_path) -> None:
    with pytest.raises(ValueError, match="k >= 1; got 0"):
        strip(source(), SEEDS, every=0)
    with pytest.raises(ValueError, match="'both'; got 'eps'"):
        strip(source(), SEEDS, what="eps")
    with pytest.raises(ValueError, match="2 labels for 3 seeds"):
        strip(source(), SEEDS, row_labels=["a", "b"])
    with pytest.raises(ValueError, match=r"Name it walk\.gif"):
        gif(source(), SEEDS, None, tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match="without labels"):
        strip(source(), SEEDS, torch.tensor([0, 1, 2]))
