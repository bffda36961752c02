"""Write snapshots as NVIDIA's code pickles them, without that code: modules that claim to carry their own source.

`torch_utils.persistence` reduces an object to a call of `_reconstruct_persistent_obj` with a dictionary: type, version,
the source of its module, the name of its class, its state. Here two stand-in modules of these names exist while a file
is written, so that the pickle mentions exactly the names of the original; the source is a text of ours that would leave
a trace if anyone ran it.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCE = "import pathlib\npathlib.Path({trace!r}).write_text('executed')\n"


class EasyDict(dict):
    """A dictionary of dnnlib's name."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a snapshot's code was asked for")


class Persistent:
    """An object that pickles as one of NVIDIA's persistent classes."""

    def __init__(self, kind: str, state: Mapping[str, Any], source: str) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": kind, "state": dict(state)}

    def __reduce__(self) -> Any:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextlib.contextmanager
def claimed_names() -> Iterator[None]:
    """Let the stand-ins be found under the original's names while a file is written."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    made = {name: types.ModuleType(name) for name in names}
    for name, owner, value in (
        ("_reconstruct_persistent_obj", "torch_utils.persistence", _reconstruct_persistent_obj),
        ("EasyDict", "dnnlib.util", EasyDict),
    ):
        value.__module__ = owner
        setattr(made[owner], name, value)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def module(
    kind: str, tensors: Mapping[str, Tensor], source: str, extra: Mapping[str, Any] = {}, kinds: Mapping[str, str] = {}
) -> Persistent | torch.nn.ModuleDict:
    """Nest a flat state dict into modules; `kinds` names the class of some of them by their path.

    Arguments:
        kind: Class of the top.
        tensors: Dotted name -> value; those called resample_filter or freqs become buffers.
        source: The code that the snapshot claims to carry.
        extra: Attributes of the top.
        kinds: Dotted path -> class name; "ModuleDict" is torch's own, others are persistent.
    """
    own = {name: t for name, t in tensors.items() if "." not in name}
    heads = dict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
    children = OrderedDict()
    for head in heads:
        inner = {name.removeprefix(f"{head}."): t for name, t in tensors.items() if name.startswith(f"{head}.")}
        below = {name.removeprefix(f"{head}."): k for name, k in kinds.items() if name.startswith(f"{head}.")}
        children[head] = module(kinds.get(head, "Layer"), inner, source, kinds=below)
    buffers = ("resample_filter", "freqs", "phases", "u")
    state = {
        "training": False,
        "_parameters": OrderedDict((n, torch.nn.Parameter(t)) for n, t in own.items() if n not in buffers),
        "_buffers": OrderedDict((n, t) for n, t in own.items() if n in buffers),
        "_modules": children,
        "_forward_hooks": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        "_init_args": (),
        "_init_kwargs": {},
        "skip_scale": np.sqrt(0.5),
        **extra,
    }
    if kind == "ModuleDict":
        plain = torch.nn.ModuleDict()
        plain.__dict__.update({k: v for k, v in state.items() if k.startswith("_") and not k.startswith("_init")})
        return plain
    return Persistent(kind, state, source)


def write(path: Path, ema: Any, *, protocol: int = pickle.HIGHEST_PROTOCOL, **more: Any) -> Path:
    """Write a snapshot: {ema, ...} as the original's training loop does."""
    with claimed_names():
        buffer = io.BytesIO()
        kwargs = EasyDict(path="images.zip", use_labels=False)
        pickle.dump({"ema": ema, "dataset_kwargs": kwargs, **more}, buffer, protocol=protocol)
    path.write_bytes(buffer.getvalue())
    return path


def edm_snapshot(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], protocol: int = pickle.HIGHEST_PROTOCOL
) -> Path:
    """Write a snapshot of one of EDM's preconditioners around its network.

    Arguments:
        path: Of the file.
        config: As the manifest of the golden numbers gives it: precond, model_type, and the constructors' arguments.
        tensors: Its state dict.
        protocol: Of the pickle.
    """
    trace = path.with_suffix(".trace")
    source = SOURCE.format(trace=str(trace))
    outer = ("precond", "model_type", "img_resolution", "img_channels", "label_dim", "sigma_data")
    kwargs = {k: v for k, v in config.items() if k not in outer}
    attributes = {
        "EDMPrecond": {"sigma_data": config.get("sigma_data", 0.5)},
        "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "sigma_min": np.float64(0.002)},
        "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100},
        "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
    }[config["precond"]]
    attributes |= {k: config[k] for k in ("img_resolution", "img_channels", "label_dim")}
    inner = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    kinds = {"enc": "ModuleDict", "dec": "ModuleDict"}
    network = module(config["model_type"], inner, source, {"_init_kwargs": kwargs, "img_resolution": 16}, kinds)
    ema = module(config["precond"], {n: t for n, t in tensors.items() if "." not in n}, source, attributes)
    assert isinstance(ema, Persistent)
    ema.meta["state"]["_modules"]["model"] = network
    return write(path, ema, protocol=protocol)


def edm2_snapshot(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: str = "") -> Path:
    """Write a snapshot of EDM2's `Precond`; arguments as for `edm_snapshot`, and the class of the encoder beside it."""
    trace = path.with_suffix(".trace")
    source = SOURCE.format(trace=str(trace))
    outer = ("img_resolution", "img_channels", "label_dim")
    attributes = {k: config[k] for k in outer} | {"sigma_data": 0.5, "use_fp16": True}
    inner = {name.removeprefix("unet."): t for name, t in tensors.items() if name.startswith("unet.")}
    kinds = {"enc": "ModuleDict", "dec": "ModuleDict"}
    network = module("UNet", inner, source, {"_init_kwargs": dict(config)}, kinds)
    ema = module("Precond", {n: t for n, t in tensors.items() if n.startswith("logvar")}, source, attributes)
    assert isinstance(ema, Persistent)
    ema.meta["state"]["_modules"]["unet"] = network
    more = {"encoder": Persistent(encoder, {"raw_std": [1.0]}, source)} if encoder else {}
    return write(path, ema, **more)


EDM_LIKE: tuple[dict[str, Any], dict[str, Tensor]] = (
    {"precond": "EDMPrecond", "model_type": "SongUNet", "img_resolution": 16, "img_channels": 3, "label_dim": 0},
    {f"model.enc.16x16_block{i}.conv{k}.weight": torch.full((2, 3), float(i + k)) for i in range(3) for k in range(2)},
)
"""Configuration and a few tensors of a snapshot that can be read, though no network fits it."""
