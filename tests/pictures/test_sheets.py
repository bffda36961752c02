"""Sheets of a run: each image stands in the cell that its labels say."""

import pytest
import torch
from PIL import Image

from sfumato import schedules
from sfumato.core.images import to_float, to_uint8
from sfumato.core.noise import normal
from sfumato.pictures import noising as noising_module
from sfumato.pictures.noising import drawing as noising
from sfumato.pictures.real_against_generated import drawing as real_against_generated
from sfumato.report import blocks as blocks_module
from sfumato.report._canvas import draw


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

    for module in (noising_module, blocks_module):
        monkeypatch.setattr(module, "draw", spy)
    return seen


def test_real_left_generated_right(drawn) -> None:
    real, made = noise_images(6, 1, 8, 8, seed=1), noise_images(6, 1, 8, 8, seed=2)
    picture = real_against_generated(real, made, 3, seeds=range(6), row_labels=["a", "b"])
    table = drawn["images"].reshape(2, 2, 3, 1, 8, 8)
    assert torch.equal(table[:, 0].flatten(0, 1), real) and torch.equal(table[:, 1].flatten(0, 1), made)
    assert picture.info["Description"] == "Generated: uncurated, seeds 0..5."
    curated = real_against_generated(real, made, 3, seeds=range(6), curated=True)
    assert curated.info["Description"].startswith("Generated: CURATED")
    with pytest.raises(ValueError, match="one shape"):
        real_against_generated(real, made[:3], 3)
    with pytest.raises(ValueError, match="rows of 4"):
        real_against_generated(real, made, 4)


def test_noising_is_the_forward_process_on_the_unit_circle(drawn) -> None:
    images = noise_images(2, 1, 8, 8)
    table = {"linear": schedules.linear(), "edm": schedules.edm(), "flow": schedules.flow()}
    noising(images, table, 5, seed=3)
    cells = drawn["images"].reshape(2, 3, 5, 1, 8, 8)
    noise = normal([3, 4], (1, 8, 8), purpose="noising", dtype=torch.float32)
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    for i in range(2):
        for j, schedule in enumerate(table.values()):
            level = schedule(times)
            h = torch.hypot(level.alpha, level.sigma)
            for k in range(5):
                x = level.alpha[k].float() * to_float(images)[i] + level.sigma[k].float() * noise[i]
                assert (to_uint8(x / h[k].float()).int() - cells[i, j, k].int()).abs().max() <= 1
    assert torch.equal(cells[:, 0, 0], images)  # t = 0 is the image itself
    assert drawn["frame"].notes[0] == "0" and drawn["frame"].notes[14] == "∞"
    with pytest.raises(ValueError, match="two times"):
        noising(images, table, 1)


def test_every_picture_is_rgb_and_says_what_it_is() -> None:
    images = noise_images(4, 3, 8, 8)
    for picture in (
        noising(images[:1], {"flow": schedules.flow()}),
        real_against_generated(images, images, 2, seeds=range(4)),
    ):
        assert isinstance(picture, Image.Image) and picture.mode == "RGB" and picture.info["Description"]
