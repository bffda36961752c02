"""Every task: the laws of operators, over the whole axis, and what each refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.find import entries, find
from sfumato.core.noise import normal
from sfumato.core.task import Task, TaskError, check_pictures
from sfumato.tasks._masks import hidden

F64 = torch.float64
SHAPES = {"colorize": [(3, 6, 8)], "*": [(1, 8, 8), (3, 6, 12)]}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("inpaint", {"mask": "random 30%"}),
    ("inpaint", {"mask": (1, 2, 3, 4)}),
    ("inpaint", {"mask": (0, 0, 0, 0)}),
    ("superres", {"factor": 2, "filter": "nearest"}),
    ("superres", {"factor": 1}),
    ("colorize", {"grey": "mean"}),
    ("deblur", {"kernel": "box", "radius": 1.5}),
    ("deblur", {"radius": 2.5}),
    ("outpaint", {"seen": 1.0}),
    ("quantise", {"levels": 2}),
    ("jpeg", {"quality": 90}),
]
CASES = [
    (name, shape, options)
    for name, options in [*((name, {}) for name in entries("task")), *OPTIONS]
    for shape in SHAPES.get(name, SHAPES["*"])
]
LINEAR = [case for case in CASES if find("task", case[0])(case[1], **case[2]).linear]


def made(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Task, Tensor, Tensor]:
    """The task, four pictures and four measurements that have nothing to do with them."""
    task = find("task", name)(shape, **options)
    return (
        task,
        normal(range(4), shape, purpose="x", dtype=F64),
        normal(range(4), task.measured, purpose="u", dtype=F64),
    )


@pytest.mark.parametrize(("name", "shape", "options"), LINEAR)
def test_the_adjoint_is_the_transpose(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """<A x, u> = <x, A^T u> for every picture and measurement, and A is linear."""
    task, x, u = made(name, shape, options)
    left, right = (task.apply(x) * u).flatten(1).sum(1), (x * task.transpose(u)).flatten(1).sum(1)
    assert torch.allclose(left, right, atol=1e-12)
    assert torch.allclose(task.apply(2 * x - x.flip(0)), 2 * task.apply(x) - task.apply(x).flip(0), atol=1e-12)


@pytest.mark.parametrize(("name", "shape", "options"), LINEAR)
def test_the_pseudo_inverse_has_its_four_properties(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """A A+ A = A, A+ A A+ = A+, and A A+ and A+ A are symmetric (Moore and Penrose)."""
    task, x, u = made(name, shape, options)
    assert torch.allclose(task.apply(task.seen(x)), task.apply(x), atol=1e-10)
    assert torch.allclose(task.seen(task.pinv(u)), task.pinv(u), atol=1e-10)
    other_x, other_u = x.flip(0), u.flip(0)
    assert torch.allclose((task.seen(x) * other_x).sum(), (x * task.seen(other_x)).sum(), atol=1e-10)
    forth, back = task.apply(task.pinv(u)), task.apply(task.pinv(other_u))
    assert torch.allclose((forth * other_u).sum(), (u * back).sum(), atol=1e-10)


@pytest.mark.parametrize(("name", "shape", "options"), LINEAR)
def test_the_spectrum_is_that_of_the_gram_operator(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """g(A A^T) u for g = the identity is A A^T u, and a g per image is taken image by image."""
    task, _, u = made(name, shape, options)
    assert torch.allclose(task.gram(u, lambda values: values), task.apply(task.transpose(u)), atol=1e-10)
    each = torch.arange(1.0, 5.0, dtype=F64).reshape(-1, *(1,) * (u.ndim - 1))
    assert torch.allclose(task.gram(u, lambda values: each + 0 * values), each * u, atol=1e-10)
    solved = task.gram(u, lambda values: 1 / (each * values + 0.3))
    assert torch.allclose(each * task.apply(task.transpose(solved)) + 0.3 * solved, u, atol=1e-10)


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_shapes_and_dtypes(name: str, shape: tuple[int, ...], options: dict[str, Any], dtype: torch.dtype) -> None:
    """Measurements and pictures have the shapes the task says and keep the dtype and device; one image is as many."""
    task, x, _ = made(name, shape, options)
    x = x.to(dtype)
    y = task.apply(x)
    assert y.shape == (4, *task.measured) and y.dtype == dtype and y.device == x.device
    assert torch.allclose(task.apply(x[1:2]), y[1:2], atol=1e-6)
    shown = task.picture(y)
    assert shown.shape == x.shape and shown.dtype == dtype
    assert task.shape == shape and task.words.startswith(name)
    noisy = find("task", name)(shape, **(options | {"noise": 0.5}))
    z = torch.ones_like(y)
    assert torch.equal(noisy.measure(x, z), y + 0.5 * z) and torch.equal(noisy.measure(x), y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_devices(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """A task works where its picture is."""
    task, x, _ = made(name, shape, options)
    y = task.apply(x.cuda())
    assert y.is_cuda and torch.allclose(y.cpu(), task.apply(x), atol=1e-10)
    assert task.picture(y).is_cuda


@pytest.mark.parametrize("name", [name for name in entries("task") if name not in {case[0] for case in LINEAR}])
def test_a_nonlinear_task_passes_gradients_and_says_that_it_is_none(name: str) -> None:
    """Rounding has no slope of its own; the gradient goes through it, and whoever asks for a transpose is told."""
    task, x, u = made(name, (1, 8, 8), {})
    x.requires_grad_()
    (slope,) = torch.autograd.grad(task.apply(x).sum(), x)
    assert slope.abs().sum() > 0
    with pytest.raises(TaskError, match=f"{name} is not linear"):
        task.pinv(u)


def test_what_each_task_measures() -> None:
    """Hand-made values."""
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    of = {name: find("task", name) for name in entries("task")}
    assert of["inpaint"](x.shape[1:]).apply(x).tolist() == [list(range(8))]
    assert of["outpaint"](x.shape[1:]).apply(x).tolist() == [[5, 6, 9, 10]]
    assert of["superres"](x.shape[1:]).apply(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert of["superres"](x.shape[1:], filter="nearest").apply(x).tolist() == [[[[0, 2], [8, 10]]]]
    colours = torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.allclose(of["colorize"]((3, 2, 2), grey="mean").apply(colours), torch.full((1, 1, 2, 2), 37.0))
    flat = torch.full((1, 1, 4, 4), 0.3)
    assert torch.allclose(of["deblur"]((1, 4, 4)).apply(flat), flat, atol=1e-6)  # a kernel of sum 1
    steps = torch.tensor([-2.0, -0.4, 0.1, 0.9]).reshape(1, 1, 2, 2)
    assert torch.allclose(of["quantise"]((1, 2, 2), levels=3).apply(steps).flatten(), torch.tensor([-1.0, 0, 0, 1]))
    fine = of["jpeg"]((1, 4, 4), quality=100).apply(torch.rand(1, 1, 4, 4))
    assert fine.shape == (1, 1, 4, 4)


def test_quality_100_loses_little_and_quality_5_much() -> None:
    x = normal([0], (1, 14, 14), purpose="x", dtype=F64).clamp(-1, 1)
    errors = [float((find("task", "jpeg")((1, 14, 14), quality=q).apply(x) - x).abs().mean()) for q in (100, 50, 5)]
    assert errors[0] < 0.005 < errors[1] < errors[2]


def test_the_pixels_that_a_measurement_leaves_open() -> None:
    """The hidden ones of a mask, all of a picture of means, all if there is noise; none if everything is seen."""
    of = {name: find("task", name) for name in entries("task")}
    assert torch.equal(of["inpaint"]((1, 4, 4)).open(), hidden("half", 4, 4)[None])
    assert of["superres"]((1, 4, 4)).open().all() and of["inpaint"]((1, 4, 4), noise=0.1).open().all()
    assert int(of["superres"]((1, 4, 4), filter="nearest").open().sum()) == 12
    assert of["quantise"]((1, 4, 4)).open().all() and not of["outpaint"]((1, 4, 4), seen=1.0).open().any()


def test_masks() -> None:
    """A word, a share, a box, and a picture; the share is exact and its pixels are those of the seed."""
    assert hidden("half", 4, 2).tolist() == [[False] * 2] * 2 + [[True] * 2] * 2
    assert int(hidden("random 30%", 10, 10).sum()) == 30 == int(hidden("random-30", 10, 10).sum())
    assert not torch.equal(hidden("random 30%", 10, 10), hidden("random 30%", 10, 10, seed=1))
    assert hidden((1, 0, 2, 1), 3, 2).int().tolist() == [[0, 0], [1, 0], [1, 0]]
    picture = torch.tensor([[0, 255], [127, 128]], dtype=torch.uint8)
    assert hidden(picture, 2, 2).tolist() == [[False, True], [False, True]]
    assert not hidden(0 * picture, 2, 2).any() and hidden(picture.clamp(max=1).double(), 2, 2).sum() == 3
    assert torch.equal(hidden(picture.numpy(), 2, 2), hidden(picture, 2, 2))  # an array of NumPy
    assert torch.equal(hidden("1, 0,2,1", 3, 2), hidden((1, 0, 2, 1), 3, 2))  # a box in words


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([[0, 1]], dtype=torch.uint8), r"largest value is 1, and those above 127 .* white \(255\)"),
        (torch.tensor([[0.0, 0.4]]), r"largest value is 0.4, and those above 0.5 .* white \(1\)"),
    ],
)
def test_a_mask_of_too_small_numbers_is_refused(values: torch.Tensor, message: str) -> None:
    """A mask of 0 and 1 in bytes, as segmentations are often stored, would mark nothing."""
    with pytest.raises(TaskError, match=message):
        hidden(values, 1, 2)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("inpaint", (1, 4, 4), {"mask": "left"}, "A mask is \"half\".*got 'left'"),
        ("inpaint", (1, 4, 4), {"mask": "random 130%"}, "A mask is"),
        ("inpaint", (1, 4, 4), {"mask": (0, 0, 5, 1)}, "lies inside the image"),
        ("inpaint", (1, 4, 4), {"mask": torch.zeros(5, 4)}, r"4x4; got \(4, 5\)"),
        ("inpaint", (1, 4, 4), {"noise": -0.1}, "standard deviation >= 0; got -0.1"),
        ("inpaint", (1, 4, 4), {"noise": float("nan")}, "standard deviation >= 0"),
        ("inpaint", (6,), {}, r"shape \(C, H, W\)"),
        ("outpaint", (1, 4, 4), {"seen": 0.0}, r"\(0, 1\]; got 0"),
        ("superres", (1, 6, 6), {"factor": 4}, "divides the size 6x6; got 4"),
        ("superres", (1, 6, 6), {"filter": "cubic"}, "'mean' or 'nearest'"),
        ("colorize", (1, 6, 6), {}, "three channels; these have 1"),
        ("colorize", (3, 6, 6), {"grey": "red"}, "one of luma, mean"),
        ("deblur", (1, 6, 6), {"radius": 0.0}, "radius above 0"),
        ("deblur", (1, 6, 6), {"kernel": "motion"}, "'gaussian' or 'box'"),
        ("quantise", (1, 6, 6), {"levels": 1}, "at least 2 levels"),
        ("jpeg", (1, 6, 6), {"quality": 0}, "1..100; got 0"),
    ],
)
def test_what_does_not_fit_is_said(name: str, shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        find("task", name)(shape, **options)


def test_pictures_of_another_shape_or_with_nan_are_refused() -> None:
    task = find("task", "inpaint")((1, 4, 4))
    with pytest.raises(TaskError, match=r"shape \(1, 4, 4\).*got \(3, 4, 4\)"):
        check_pictures(task, torch.zeros(2, 3, 4, 4))
    with pytest.raises(TaskError, match="1 of 2 pictures hold NaN"):
        check_pictures(task, torch.zeros(2, 1, 4, 4).index_fill(0, torch.tensor([1]), float("nan")))
