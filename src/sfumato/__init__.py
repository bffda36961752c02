"""sfumato: the design space of diffusion models as a directory tree.

Every paper is a recipe made of the same parts, and every score carries the protocol that makes it comparable.

    import sfumato as sf

    model = sf.train("edm-digits", "runs/digits")
    model.sample(40).save("digits.png")
    model.evaluate(n=1000)

The names below are imported from their modules when they are first used, so that importing this package does not
import torch. Everything else is found where it is defined: `sfumato.core`, `sfumato.samplers` and so on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato.api import evaluate, fd, list_parts, search, train
    from sfumato.core.denoiser import Denoiser, Preconditioned, Prediction, State
    from sfumato.core.find import find
    from sfumato.core.level import Level
    from sfumato.core.noise import SamplingNoise
    from sfumato.core.outside import allow
    from sfumato.model import load
    from sfumato.runs.recipe import Recipe, part
    from sfumato.sources import Diffusion

__version__ = "0.1.0"
__all__ = [
    "Denoiser",
    "Diffusion",
    "Level",
    "Preconditioned",
    "Prediction",
    "Recipe",
    "SamplingNoise",
    "State",
    "allow",
    "evaluate",
    "fd",
    "find",
    "list_parts",
    "load",
    "part",
    "search",
    "train",
]

_MODULES = {
    "api": ("evaluate", "fd", "list_parts", "search", "train"),
    "core.denoiser": ("Denoiser", "Preconditioned", "Prediction", "State"),
    "core.find": ("find",),
    "core.outside": ("allow",),
    "core.level": ("Level",),
    "core.noise": ("SamplingNoise",),
    "model": ("load",),
    "runs.recipe": ("Recipe", "part"),
    "sources": ("Diffusion",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"sfumato.{module}"), name)
            return value
    raise AttributeError(f"module 'sfumato' has no attribute {name!r}. It has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
