"""Averages of the weights.

An exponential average with half-life H (in images) forgets by ``2^(-batch / H)`` a step; its half-life is held to a
share of the images seen so far, so that the random start is forgotten (EDM). A power-function average (EDM2) weights
the weights of step i by i^gamma, so its width is a fixed *share* of the run at every moment:

    beta_k = (1 - 1/k)^(gamma + 1),   k = 1, 2, ...
    width  = sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))

Both are kept side by side, as many as asked; the raw weights are one more choice. Averages are fp32.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, appendix F.
    https://arxiv.org/abs/2206.00364
    Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. 2024, section 3 and appendix C.
    https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from sfumato.processes.ranks import Ranks
from sfumato.runs.averages import gamma_of, half_life_name, power_name, spellings
from sfumato.runs.recipe import Ema, RecipeError
from sfumato.training.replicas import Copies


class Profile(Protocol):
    """(images seen after this step, batch) -> share of the old average that is kept."""

    def __call__(self, seen: int, batch: int) -> float: ...


def power(sigma_rel: float) -> Profile:
    """The power-function profile of a relative width."""
    gamma = gamma_of(sigma_rel)
    return lambda seen, batch: max(0.0, 1 - batch / seen) ** (gamma + 1)


def half_life(million_images: float, warmup: float) -> Profile:
    """The exponential profile of a half-life, held to `warmup` of the images seen."""

    def profile(seen: int, batch: int) -> float:
        length = min(million_images * 1e6, warmup * seen) if warmup > 0 else million_images * 1e6
        return float(0.5 ** (batch / length))

    return profile


class Averages:
    """Keep several averages of a network's parameters and buffers.

    Arguments:
        network: The network being trained.
        spec: Widths and half-lives of the averages (see `recipe.Ema`).
        held: How the processes of the run hold weights; whole unless given.
    """

    def __init__(self, network: nn.Module, spec: Ema, held: Copies | None = None) -> None:
        self.held = held or Copies(Ranks())
        self.spec = spec
        profiles = [*map(power, spec.power), *(half_life(h, spec.warmup) for h in spec.half_life)]
        names = [*map(power_name, spec.power), *map(half_life_name, spec.half_life)]
        self.profiles: dict[str, Profile] = dict(zip(names, profiles))
        if not {"raw", *self.profiles} & {*spellings(spec.use, spec)}:
            raise RecipeError(f"ema.use={spec.use!r} is not kept. Available: {', '.join(['raw', *self.profiles])}.")
        start = network.state_dict()
        self.weights = {name: {k: v.detach().clone() for k, v in start.items()} for name in self.profiles}

    @torch.no_grad()
    def update(self, network: nn.Module, seen: int, batch: int, good: Tensor | None = None) -> None:
        """Move every average towards the network after a step.

        Arguments:
            network: As the step left it.
            seen: Images at the end of the step.
            batch: Images of the step.
            good: Whether the step was taken, a bool () on the network's device; None if it is known to be taken.
        """
        state = network.state_dict()
        floating = [k for k, v in state.items() if v.is_floating_point()]
        fresh = self._own(state, floating)
        for name, profile in self.profiles.items():
            average = self.weights[name]
            self._move(self._own(average, floating), fresh, 1 - profile(seen, batch), good)
            for k, v in state.items():
                if not v.is_floating_point():
                    average[k].copy_(v)

    def _own(self, weights: Mapping[str, Tensor], names: list[str]) -> list[Tensor]:
        """Return what this process has of weights: all of them, or its pieces where several divide them."""
        if self.held.ranks.world == 1:
            return [weights[name] for name in names]
        return [self.held.own(weights[name]) for name in names]

    def _move(self, averages: list[Tensor], fresh: list[Tensor], share: float, good: Tensor | None) -> None:
        if good is None:
            torch._foreach_lerp_(averages, fresh, share)
            return
        way = torch._foreach_sub(fresh, averages)  # a lerp has no share that all tensors have on the device
        torch._foreach_mul_(way, good * share)
        torch._foreach_add_(averages, way)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the averages as groups of a checkpoint; they are the live tensors."""
        return {f"ema-{name}": weights for name, weights in self.weights.items()}

    def load(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over saved averages, whole ones, from the groups of a checkpoint; a new one starts at its weights."""
        for name, weights in self.weights.items():
            group = next((f"ema-{s}" for s in spellings(name, self.spec) if f"ema-{s}" in saved), "network")
            for key, value in saved[group].items():
                weights[key].copy_(self.held.divided(value, weights[key]))

    def network(self, network: nn.Module, use: str) -> nn.Module:
        """Return a copy of the network that carries the average `use` ("raw" for the network's own weights)."""
        name = next((s for s in spellings(use, self.spec) if s in self.weights), use)
        twin = self.held.twin(network, network.state_dict() if use == "raw" else self.weights[name])
        return twin.eval().requires_grad_(False)
