"""The bound of a model of latents on the bits of pixels: what its image, its latent and its prior cost.

    -log2 P(x)  <=  -log2 P(x | z)  -  H(q(z | x))  +  CE(z)                       z from q(z | x)

P(x | z) is the mass that the decoder's Gaussian gives to the pixels' codes, H is closed, and CE is the denoiser's bound
on -log2 p(z) (`latent.bound`), an integral over noise levels that is estimated at one level in each of K equal parts
of ln SNR. Two-stage and joint models have the same bound; latents that were shifted and scaled by s before training
cost sum log2 s more. An autoencoder without noise has no density q, and so no bound.

References:
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021, equation (7).
    https://arxiv.org/abs/2106.05931
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.codelength.chain import continuous, on_path, own_gauge
from sfumato.codelength.measure import ids
from sfumato.codelength.result import Asked, cell, facts_of, file_of, likelihood, measured_sets, score_of
from sfumato.core.images import to_float
from sfumato.core.noise import normal, uniform
from sfumato.core.writing import replace_json
from sfumato.data.dataset import Dataset
from sfumato.evaluation.reconstruction import pixel_nats
from sfumato.evaluation.result import in_lines
from sfumato.latent.bound import levels_of, rest, saving, standard_normal
from sfumato.latent.space import Latents
from sfumato.processes.machine import computing_on
from sfumato.progress import bar_of
from sfumato.runs.part import option
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run

STEPS = 100  # levels at which the prior is asked
NEAR, FAR = 0.01, 100.0  # sigma / alpha between which it is


def bits_of_pixels(
    run: Run,
    asked: Asked,
    *,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    command: str = "",
    quiet: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Measure bits per dimension of pixels and write RUN/results/likelihood-*.json; of latents, this file's bound.

    Arguments:
        run: A run that walks pixels (`codelength.result.likelihood`) or latents.
        asked: Settings of the measurement; of its parts only "vlb" exists for latents.
        use: Name of the average of the weights; None for the recipe's choice.
        root: Folder that holds the datasets; None for the default.
        device: None for the best at hand.
        command: Command line that makes the result again; it is written into the result.
        quiet: Whether to show no progress bar.

    Returns:
        The result and its path.

    Raises:
        RecipeError: If only the ODE is asked for, or the autoencoder has no posterior.
        LeakageError: If the model was trained on images of a held-out split.
    """
    if not run.plan.in_latents:
        return likelihood(run, asked, use=use, root=root, device=device, command=command, quiet=quiet)
    device = computing_on(device)
    space = run.space(use, device)
    assert isinstance(space, Latents)
    refuse(run, asked, space)
    recipe, steps = run.recipe, asked.steps or STEPS
    near, far = (asked.near or option(recipe.objective, "near") or NEAR, option(recipe.objective, "far") or FAR)
    if not near < far:
        raise RecipeError(f"--near is the sigma/alpha at the clean end, below {far:g}; got {near:g}.")
    splits, flags = measured_sets(run, asked, root)
    told = asked.labels and bool(run.plan.classes)
    facts = facts_of(run, asked, use, told, device) | {
        "bound": f"{steps} levels from sigma/alpha {far:g} to {near:g}, one in each part of ln SNR",
        "nfe": steps,
    }
    terms = {}
    for name, data in splits.items():
        with bar_of(
            len(data) * len(asked.seeds) * steps, "eval", f"bound, {name}", quiet=quiet, unit_scale=True
        ) as bar:
            terms[name] = _terms(run, data, space, use, device, asked.seeds, steps, (near, far), told, bar.update)
    bits = {name: torch.stack(list(each.values())).sum(0) for name, each in terms.items()}
    rows = [
        {"split": name, "n": len(bits[name]), "bits/dim (bound)": cell(bits[name])}
        | {term: cell(values) for term, values in each.items()}
        for name, each in terms.items()
    ]
    tree: dict[str, Any] = {
        "run": run.path.name,
        "recipe": recipe.name,
        "scores": [score_of("latent", bits[n], data, facts, flags[n]).to_json() for n, data in splits.items()],
        "provenance": facts,
        "tables": {"likelihood": rows},
        "curves": {},
        "per_image": {name: {"latent": [round(v, 5) for v in values.tolist()]} for name, values in bits.items()},
        **({"command": command} if command else {}),
    }
    path = file_of(run, asked, facts, splits)
    replace_json(path, tree, else_say=partial(in_lines, tree))
    return tree, path


def refuse(run: Run, asked: Asked, space: Latents) -> None:
    """Refuse what has no bound in pixels.

    Raises:
        RecipeError: With the reason.
    """
    if "vlb" not in asked.parts:
        raise RecipeError(
            f"{run.path} walks latents: along its ODE there is a density of latents and none of pixels. Ask for the "
            "bound, --parts vlb."
        )
    if not space.autoencoder.network.noisy:
        raise RecipeError(
            f"{run.path} has no likelihood of pixels: its autoencoder has no posterior q(z | x) (network.noisy=false), "
            "so nothing bounds p(x). Train the autoencoder with network.noisy=true."
        )


@torch.no_grad()
def _terms(
    run: Run,
    data: Dataset,
    space: Latents,
    use: str | None,
    device: torch.device,
    seeds: tuple[int, ...],
    steps: int,
    ends: tuple[float, float],
    told: bool,
    progress: Callable[[int], object],
) -> dict[str, Tensor]:
    """Return the terms of the bound in bits/dim, float64 (B,) each, averaged over seeds."""
    model = continuous(run.denoiser(use, device))
    model.autocast = None
    gauge, (near, far), batch = own_gauge(run.plan), ends, min(64, run.recipe.sample.batch)
    wider = sum(math.log(s) for s in space.scale) * space.shape[1] * space.shape[2]
    found: list[dict[str, Tensor]] = []
    for start in range(0, len(data), batch):
        rows = range(start, min(len(data), start + batch))
        x0 = to_float(data.images[rows.start : rows.stop]).to(device)
        label = data.labels[rows.start : rows.stop].to(device) if told and data.labels is not None else None
        posterior = space.autoencoder.encode(x0)
        each: list[dict[str, Tensor]] = []
        for seed in seeds:
            address = ids(rows, seed)
            raw = posterior.sample(normal(address, space.shape, purpose="posterior", device=device))
            z = space.standardised(raw)
            cross = standard_normal(z) + rest(z, near)
            for k in range(steps):
                u = (k + uniform(address, purpose="prior-level", step=k).cpu()) / steps
                n = normal(address, space.shape, purpose="prior-noise", step=k, device=device)
                level = on_path(gauge, levels_of(u, near, far).nsr)
                cross = cross + 2 * math.log(far / near) / steps * saving(model, z, n, level, label)
                progress(len(x0))
            pixels = pixel_nats(space.autoencoder, x0, raw)
            each.append({"image": pixels, "entropy": wider - posterior.entropy(), "prior": cross})
        found.append({name: torch.stack([one[name] for one in each]).double().mean(0).cpu() for name in each[0]})
    names = {"image": "-log2 P(x|z)", "entropy": "-H(q)", "prior": "cross entropy of the prior"}
    unit = math.log(2) * data.images[0].numel()
    # -H(q) of scaled latents is that of the encoder's plus their scale
    return {words: torch.cat([one[name] for one in found]) / unit for name, words in names.items()}
