"""DDPM's ablation (its Table 2): what the network predicts, whether it learns the variance, which loss trains it.

    predicts    loss                        variance            FID     name
    mu-tilde    L                           learned, diagonal   23.69   ddpm-ablation-mu-bound-learned
    mu-tilde    L                           fixed               13.22   ddpm-ablation-mu-bound
    mu-tilde    plain squared error         fixed               -       ddpm-ablation-mu-mse
    eps         L                           learned, diagonal   -       ddpm-ablation-eps-bound-learned
    eps         L                           fixed               13.51   ddpm-ablation-eps-bound
    eps         plain squared error         fixed               3.17    ddpm-cifar10

A dash means that training was unstable. L is the bound of eq. (5), T times a uniformly drawn term; the plain error is
that of the network's own output. Predicting x0 was reported to be worse early on; its row completes the table.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, Table 2. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sfumato.recipes._paper import ancestral
from sfumato.recipes.ddpm import ddpm_cifar10
from sfumato.runs.recipe import Part, Recipe, part

BOUND = part("objective", "vlb", fixed="large", stratified=False, decoder="tanh")
SQUARED = part("objective", "denoising", stratified=False)


def ddpm_ablation_mu_bound_learned() -> Recipe:
    """DDPM's ablation: mu-tilde, the bound L, learned diagonal variance.

    Paper: Ho et al., 2020, Table 2.
    Command: sfumato train ddpm-ablation-mu-bound-learned
    Hardware and time: as ddpm-cifar10.
    Expected: FID 23.69 (n = 50,000).
    """
    return _row("mu-bound-learned", "mu-tilde", BOUND, "diagonal")


def ddpm_ablation_mu_bound() -> Recipe:
    """DDPM's ablation: mu-tilde, the bound L, fixed variance.

    Paper: Ho et al., 2020, Table 2.
    Command: sfumato train ddpm-ablation-mu-bound
    Hardware and time: as ddpm-cifar10.
    Expected: FID 13.22 (n = 50,000).
    """
    return _row("mu-bound", "mu-tilde", BOUND)


def ddpm_ablation_mu_mse() -> Recipe:
    """DDPM's ablation: mu-tilde, plain squared error, fixed variance.

    Paper: Ho et al., 2020, Table 2.
    Command: sfumato train ddpm-ablation-mu-mse
    Hardware and time: as ddpm-cifar10.
    Expected: unstable, no score.
    """
    return _row("mu-mse", "mu-tilde", SQUARED)


def ddpm_ablation_eps_bound_learned() -> Recipe:
    """DDPM's ablation: eps, the bound L, learned diagonal variance.

    Paper: Ho et al., 2020, Table 2.
    Command: sfumato train ddpm-ablation-eps-bound-learned
    Hardware and time: as ddpm-cifar10.
    Expected: unstable, no score.
    """
    return _row("eps-bound-learned", "eps", BOUND, "diagonal")


def ddpm_ablation_eps_bound() -> Recipe:
    """DDPM's ablation: eps, the bound L, fixed variance.

    Paper: Ho et al., 2020, Table 2.
    Command: sfumato train ddpm-ablation-eps-bound
    Hardware and time: as ddpm-cifar10.
    Expected: FID 13.51, IS 7.67 +- 0.13 (n = 50,000); at most 3.70 bits/dim.
    """
    return _row("eps-bound", "eps", BOUND)


def ddpm_ablation_x0_mse() -> Recipe:
    """DDPM's ablation, completed: x0, plain squared error, fixed variance.

    Paper: Ho et al., 2020, section 3.2 (worse early in training, not in the table).
    Command: sfumato train ddpm-ablation-x0-mse
    Hardware and time: as ddpm-cifar10.
    Expected: no published score.
    """
    return _row("x0-mse", "x0", SQUARED)


def _row(name: str, target: str, objective: Part, variance: Literal["none", "diagonal"] = "none") -> Recipe:
    return replace(
        ddpm_cifar10(),
        name=f"ddpm-ablation-{name}",
        target=part("target", target),
        weighting=part("weighting", "native"),
        objective=objective,
        variance=variance,
        sample=ancestral("large" if variance == "none" else variance),
    )
