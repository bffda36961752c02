"""Sheets that compare: each image stands in the cell that its labels say."""

import pytest
import torch
from PIL import Image

from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.level import Level
from sfumato.guidance.cfg import cfg
from sfumato.report import blocks as blocks_module
from sfumato.report import neighbours as neighbours_module
from sfumato.report._canvas import draw
from sfumato.report.neighbours import neighbours
from sfumato.report.sweep import cfg_sheet, sweep
from sfumato.samplers.euler import euler
from sfumato.sources import Diffusion


def noise_images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture
def drawn(monkeypatch):
    """Record what each picture hands to the canvas; that the canvas draws it unchanged is tested with the sheet."""
    seen = {}

    def spy(images, columns, frame, **options):
        seen.update(images=images, columns=columns, frame=frame)
        return draw(images, columns, frame, **options)

    for module in (neighbours_module, blocks_module):
        monkeypatch.setattr(module, "draw", spy)
    return seen


def model() -> Diffusion:
    """Two classes known exactly, dark and bright; a label selects one."""
    dark, bright = (Gaussian(torch.full((16,), m), torch.full((16,), 0.02)) for m in (-0.5, 0.5))
    mixture = GaussianMixture(torch.tensor([0.5, 0.5]), [dark, bright])
    return Diffusion(mixture, euler, Level.of(1.0, [10.0, 1.0, 0.3, 0.0]), (1, 4, 4), classes=2)


def test_a_sweep_shows_each_source_in_its_column(drawn) -> None:
    sources = {"a": model(), "b": lambda seeds, labels: noise_images(len(seeds), 1, 4, 4)}
    labels = torch.tensor([0, 1])
    picture = sweep(sources, [5, 6], labels, row_labels=["dark", "bright"])
    assert list(drawn["frame"].columns) == ["a", "b"] and drawn["columns"] == 2
    for j, source in enumerate(sources.values()):
        assert torch.equal(drawn["images"][j::2], source([5, 6], labels))
    assert "seeds 5..6, the same in every column" in picture.info["Description"]


def test_blocks_of_a_sweep_keep_the_order_of_seeds(drawn) -> None:
    sources = {str(i): lambda seeds, labels, i=i: noise_images(len(seeds), 1, 4, 4, seed=i) for i in range(3)}
    sweep(sources, range(8), across=4)
    table = drawn["images"].reshape(2, 3, 4, 1, 4, 4)  # row, source, across
    for i in range(3):
        assert torch.equal(table[:, i].flatten(0, 1), noise_images(8, 1, 4, 4, seed=i))
    with pytest.raises(ValueError, match="8 seeds for rows of 3"):
        sweep(sources, range(8), across=3)


def test_guidance_sheet_is_the_guided_model_and_weight_one_the_model_itself(drawn) -> None:
    source, labels = model(), torch.tensor([0, 1, 0, 1])
    original = source.denoiser
    cfg_sheet(source, range(4), labels, weights=(1.0, 3.0))
    assert source.denoiser is original  # the caller's source is left as it was
    assert torch.equal(drawn["images"][0::2], source(range(4), labels))
    source.denoiser = cfg(original, 3.0)
    assert torch.equal(drawn["images"][1::2], source(range(4), labels))
    assert list(drawn["frame"].columns) == ["w = 1", "w = 3"]


def test_neighbours_stand_beside_their_sample_and_a_copy_says_so(drawn) -> None:
    samples, nearest = noise_images(3, 1, 8, 8), noise_images(3, 2, 1, 8, 8, seed=1)
    distances = torch.tensor([[0.0, 1.5], [2.0, 2.25], [0.5, 30.0]])
    indices = torch.tensor([[7, 8], [9, 10], [11, 12]])
    neighbours(samples, nearest, distances, indices, seeds=[4, 5, 6])
    rows = drawn["images"].reshape(3, 3, 1, 8, 8)
    assert torch.equal(rows[:, 0], samples) and torch.equal(rows[:, 1:], nearest)
    notes = drawn["frame"].notes
    assert notes == ["seed 4", "copy #7", "1.5 #8", "seed 5", "2 #9", "2.25 #10", "seed 6", "0.5 #11", "30 #12"]
    with pytest.raises(ValueError, match="ascend"):
        neighbours(samples, nearest, distances.flip(1))
    with pytest.raises(ValueError, match="neighbours"):
        neighbours(samples, nearest[:2], distances)


def test_every_picture_is_rgb_and_says_what_it_is() -> None:
    images = noise_images(4, 3, 8, 8)
    pictures = [
        neighbours(images, images.unsqueeze(1), torch.zeros(4, 1)),
        sweep({"a": lambda seeds, labels: images}, range(4)),
    ]
    for picture in pictures:
        assert isinstance(picture, Image.Image) and picture.mode == "RGB" and picture.info["Description"]
