"""Networks whose weights a person brings: the file must be there, be the one it should be, and hold the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sfumato.download import brought, data_root
from sfumato.metrics.features import file_hash

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours in [0, 1]
Net = TypeVar("Net", bound=nn.Module)


class WeightsError(ValueError):
    """A weights file is missing, or is not the network it should be."""


def read_file(path: Path, name: str, begins: str = "", download: bool = False) -> tuple[Any, str]:
    """Return what a weights file holds, read without executing anything in it, and its sha256.

    Arguments:
        path: The file; a name without a folder may lie in the cache or the data root, too (`download.brought`).
        name: What to bring, for messages.
        begins: How its sha256 must begin.
        download: Whether it can be fetched instead.

    Raises:
        WeightsError: If it is missing or another one.
    """
    path = brought(path)
    if not path.is_file():
        command = ", or let it be fetched by --weights download" if download else ""
        option = " or weights='download'" if download else ""
        raise WeightsError(
            f"There is no weights file {path}. Bring {name}: put it here or into {data_root()}, or name it by "
            f"--weights FILE{command} (in Python: the extractor's option weights='FILE'{option})."
        )
    found = file_hash(path)
    if not found.startswith(begins):
        raise WeightsError(
            f"The sha256 of {path} is {found}; it must begin with {begins}. The file is another network or damaged: "
            f"bring {name}."
        )
    return torch.load(path, map_location="cpu", weights_only=True), found


def holding(net: Net, state: dict[str, Tensor], what: str, remedy: str) -> Net:
    """Return a network, made without values, in evaluation mode with the tensors of a file.

    Arguments:
        net: On the meta device.
        state: Tensors by name.
        what: The network in words.
        remedy: What to do if the tensors are those of another.

    Raises:
        WeightsError: If they are.
    """
    want = {key: value.shape for key, value in net.state_dict().items()}
    wrong = sorted(key for key in want.keys() | state.keys() if key not in state or want.get(key) != state[key].shape)
    if wrong:
        raise WeightsError(f"{len(wrong)} tensors do not fit {what}, first '{wrong[0]}'. {remedy}")
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False).float()


def imagenet_scaled(images: Tensor) -> Tensor:
    """Return uint8 images (B, 3, H, W) in [0, 1], less ImageNet's mean, in its deviations."""
    mean, deviation = (torch.tensor(value, device=images.device)[:, None, None] for value in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation
