"""ONNX: the raw network as a graph, with the numbers that make a denoiser of it.

The graph takes x (B, C, H, W) as the network sees it, c_noise (B,) and, in a labelled model, label (B,) int64 with -1
for none; it returns F. A denoiser is D = c_skip x + c_out F(c_in x, c_noise); all four are functions of the level,
which `denoiser.json` tabulates on the run's own grid. The graph is run by onnxruntime and compared with the network
before it counts as written.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.core.denoiser import skip_and_out
from sfumato.core.noise import normal
from sfumato.core.optional import optional
from sfumato.interop.card import card
from sfumato.interop.tensors import ForeignError
from sfumato.runs.checkpoint import write_json
from sfumato.runs.run import Run

TOLERANCE = 1e-4  # of the largest value; float32 with another order of sums reaches a few 1e-6
OPSET = 17


class _Plain(nn.Module):
    """Call the network with positional tensors only, as a graph has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return self.network(x, c_noise, label)


def onnx(run: Run, folder: Path, use: str | None = None) -> list[str]:
    """The network as an ONNX graph, checked with onnxruntime, and a table of its coefficients.

    Arguments:
        run: The run to write.
        folder: An empty folder to write into.
        use: Name of the average of the weights; None for the recipe's choice.

    Returns:
        What was written, in lines to print.

    Raises:
        ForeignError: If the packages are missing, or the graph does not give the network's output.
    """
    _, onnxruntime = (optional(name, "onnx", "ONNX", ForeignError) for name in ("onnx", "onnxruntime"))
    shape = run.plan.shape
    if run.recipe.data.told_more:
        raise ForeignError(
            f"{run.recipe.name} is told attributes or an image beside its own, and the graph tells a label only. "
            "Export it as safetensors."
        )
    if not run.plan.kind.levels:
        raise ForeignError(
            f"{run.path} trained {run.plan.kind.words}, and the graph is that of a network that is told a "
            "noise level. Export it as safetensors."
        )
    labelled = bool(run.recipe.data.labels and shape.classes)
    network = _Plain(run.network(use)).eval()
    names = ["x", "c_noise", *(["label"] if labelled else [])]
    file = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # by tracing: the newer exporter takes a minute for a small U-Net and fixes the batch at the example's
        torch.onnx.export(
            network,
            _inputs(run, 2, labelled),
            str(file),
            input_names=names,
            output_names=["F"],
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in (*names, "F")},
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    deviation = max(_error(session, network, _inputs(run, count, labelled), names) for count in (1, 3))
    if not deviation < TOLERANCE:
        raise ForeignError(f"The graph deviates from the network by {deviation:.1e} of the largest output; refused.")
    write_json(folder / "denoiser.json", _coefficients(run))
    (folder / "README.md").write_text(card(run, use))
    size = file.stat().st_size / 2**20
    told = f"{size:.1f} MiB; {', '.join(names)} -> F; largest deviation {deviation:.1e}"
    return [f"network.onnx ({told}), denoiser.json: level -> c_in, ..."]


def _inputs(run: Run, count: int, labelled: bool) -> tuple[Tensor, ...]:
    shape = run.plan.shape
    x = normal(range(count), (shape.channels, shape.height, shape.width), purpose="onnx")
    grid = run.plan.grid
    told = run.plan.c_noise(grid[torch.arange(count) % max(1, len(grid) - 1)]).float().reshape(count)
    return (x, told, torch.arange(count) % len(shape.classes)) if labelled else (x, told)


def _error(session: Any, network: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> float:
    """Return the largest deviation of the graph, as a share of the largest output."""
    with torch.no_grad():
        wanted = network(*inputs).numpy()
    (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, inputs)})
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))


def _coefficients(run: Run) -> dict[str, Any]:
    """Tabulate the denoiser's coefficients on the run's own grid."""
    plan = run.plan
    grid, scale = plan.grid[:-1], plan.c_in
    c_skip, c_out = skip_and_out(plan.target, grid)
    columns = {
        "alpha": grid.alpha,
        "sigma": grid.sigma,
        "c_in": torch.ones_like(grid.alpha) if scale is None else scale(grid),
        "c_noise": plan.c_noise(grid),
        "c_skip": c_skip,
        "c_out": c_out,
    }
    rule = "D = c_skip x + c_out F(c_in x, c_noise[, label]), x = alpha x0 + sigma n; the last step ends at (1, 0)"
    return {"rule": rule, "recipe": run.recipe.name, "levels": {k: v.tolist() for k, v in columns.items()}}
