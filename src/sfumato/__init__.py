"""sfumato: the design space of diffusion models as a directory tree.

Every paper is a recipe made of the same parts, and every score carries the protocol that makes it comparable.
Importing this package does not import torch; the rooms (`sfumato.core`, `sfumato.samplers`, ...) and `load` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sfumato.model import Model

__version__ = "0.1.0.dev0"
__all__ = ["allow", "load"]


def allow(*modules: str) -> None:
    """Allow runs and pictures to name parts of these modules, as "module:function". See `sfumato.core.outside`.

    Arguments:
        modules: Dotted names; a package allows its modules.
    """
    from sfumato.core.outside import allow as allowed

    allowed(*modules)


def load(path: Path | str, *, use: str | None = None, device: str | None = None) -> Model:
    """Open a trained model: a run's directory, or OWNER/NAME on the Hugging Face Hub. See `sfumato.model`.

    Arguments:
        path: Where it is.
        use: Which average of the weights; None for the recipe's choice.
        device: None for the best at hand.
    """
    from sfumato.model import load as opened

    return opened(path, use=use, device=device)
