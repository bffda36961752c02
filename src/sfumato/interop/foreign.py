"""A foreign checkpoint, opened but not yet understood, and what a family makes of it.

A family of checkpoints is a file of `sfumato.interop.families` with a function of its own name, ``(Foreign) -> Imported
or None``: it recognises its own by the names of tensors, of classes or of configuration keys, and says which recipe
they belong to. What the file does not say and a family had to assume is listed in `Imported.assumed`, to be printed;
each assumption names the field that changes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sfumato.core.reading import read_json
from sfumato.core.weights import read_tensors
from sfumato.interop.tensors import ForeignError, Module, read_file
from sfumato.runs.recipe import Data, Recipe, Shape

Rename = Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]
SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".th", ".safetensors")
CONFIG_BYTES = 1 << 20
STATES = ("state_dict", "model", "ema", "netG")  # usual names of a state dict in a file, the first one there is read
SETTINGS = ("args", "config", "hyper_parameters", "model_config", "hparams")  # usual names of a trainer's options


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())


@dataclass(frozen=True)
class Foreign:
    """Hold a foreign checkpoint.

    Attributes:
        path: File or folder, as the user named it.
        content: Content of the file: tensors by name, `Module`, or anything a pickle may hold.
        configs: Name -> JSON of the configuration files of a folder.
        size: Side of the images, where the user told it.
        order: Order of ADM's attention channels, "legacy" or "new", where the user told it.
        raw: Whether the trained weights are wanted where the file also has their average.
        notes: What the reader should know of how it was opened, one line each.
    """

    path: Path
    content: Any
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    size: int | None = None
    order: str | None = None
    raw: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def under(self) -> str | None:
        """The usual name under which the content holds a state dict; None if it is one itself or holds none."""
        held = self.content if isinstance(self.content, dict) else {}
        return next((key for key in STATES if _has_tensors(held.get(key))), None)

    @property
    def beside(self) -> tuple[str, ...]:
        """Other state dicts and settings that the content holds beside the one that is read, by name."""
        if self.under is None:
            return ()
        kept = {key: value for key, value in self.content.items() if isinstance(key, str) and key != self.under}
        return tuple(key for key, value in kept.items() if _has_tensors(value) or key in SETTINGS)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, if the content is a state dict or holds one under a usual name; {} if not."""
        content = self.content if self.under is None else self.content[self.under]
        if not isinstance(content, dict):
            return {}
        found = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
        return self.renamed(found, lambda k: k.removeprefix("module.")) if len(found) == len(content) else {}

    def renamed(self, tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
        """Return tensors under other names.

        Arguments:
            tensors: Those of the file, by name.
            rename: Name -> name.

        Raises:
            ForeignError: If two tensors get one name.
        """
        names: dict[str, str] = {}
        for name in tensors:
            if (other := names.setdefault(rename(name), name)) != name:
                raise ForeignError(f"{self.path} holds both {other} and {name}, which are two names of one tensor.")
        return {new: tensors[name] for new, name in names.items()}

    @property
    def module(self) -> Module | None:
        """The network, if the content is a snapshot by NVIDIA's code: its average, if there is one."""
        content = self.content
        if isinstance(content, dict):
            content = next((content[k] for k in ("ema", "net") if isinstance(content.get(k), Module)), None)
        return content if isinstance(content, Module) else None

    def data(self, shape: Shape) -> tuple[Data, str]:
        """Return the data that the file's name speaks of, and the assumption to print."""
        text = self.path.name.lower()
        known = (("cifar10", "cifar10"), ("cifar-10", "cifar10"), ("celeba", "celeba"), ("fashion", "fashion-mnist"))
        name = next((ours for word, ours in known if word in text), "folder:images")
        official = name in ("cifar10", "fashion-mnist")
        data = Data(
            name, size=None if official else shape.height, test=None if official else 0.0, labels=bool(shape.classes)
        )
        return data, f"data.name={name}: the file does not say what it was trained on (needed to evaluate only)"


@dataclass(frozen=True)
class Imported:
    """Say what a foreign checkpoint is.

    Attributes:
        family: Name of the family.
        recipe: The resolved recipe that describes the checkpoint in our parts.
        tensors: State dict of the original.
        rename: (tensors, our network) -> our state dict; raises ValueError for what is missing or left over.
        assumed: Assumptions where the file is silent, one line each.
        notes: Further facts for the reader, one line each.
        untrained: Parts of our network that the file has nothing for; they keep the weights they start with.
        heeded: Names of the options, of order and raw, by which there was something to choose.
    """

    family: str
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    rename: Rename
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    heeded: tuple[str, ...] = ()


def open_foreign(
    path: Path, *, size: int | None = None, order: str | None = None, raw: bool = False, ema: bool = False
) -> Foreign:
    """Open a file or a folder without executing anything in it.

    Arguments:
        path: A .pt, .pth, .ckpt, .pkl or .safetensors file, or a folder in diffusers' layout, or one that holds a GAN's
            netG and perhaps netD (netG.pth or netG_epoch_24.pth, say; one of each).
        size: Side of the images, if known.
        order: Order of ADM's attention channels, "legacy" or "new", if known.
        raw: Whether to prefer the trained weights to their average.
        ema: Whether to take unet_ema/, where a folder of diffusers has one beside unet/.

    Raises:
        ForeignError: If it is missing, unsafe or damaged.
    """
    if path.is_dir():
        found = Foreign(path, None, {}, size, order, raw)
        unets = [p for p in (path / "unet", path) if (p / "config.json").is_file()]
        average = path / "unet_ema"
        if ema and not (average / "config.json").is_file():
            raise ForeignError(f"{path} has no unet_ema/config.json, which --ema takes in place of unet/.")
        return _folder(found, average if ema else unets[0]) if ema or unets else replace(found, content=_sides(path))
    if ema:
        raise ForeignError(f"--ema takes unet_ema/ of a folder of diffusers; {path} is none.")
    if not path.is_file():
        raise ForeignError(f"There is no file or folder {path}.")
    if path.suffix not in SUFFIXES:
        raise ForeignError(f"{path} is none of {', '.join(SUFFIXES)} nor a folder of diffusers or a GAN.")
    return Foreign(path, _weights(path), {}, size, order, raw)


def _folder(found: Foreign, unet: Path) -> Foreign:
    """Open a folder of diffusers, its network from `unet`."""
    path, configs = found.path, {"unet": _config(unet / "config.json")}
    beside = (path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json")
    if scheduler := next((file for file in beside if file.is_file()), None):
        configs["scheduler"] = _config(scheduler)
    if (path / "model_index.json").is_file():
        configs["pipeline"] = _config(path / "model_index.json")
    notes = []
    if unet.name == "unet_ema":
        notes.append("the average of the weights, unet_ema/")
    elif (path / "unet_ema").is_dir():
        notes.append(f"{unet.name}/, as a pipeline would; unet_ema/ beside it holds an average (--ema takes it)")
    content, told = _shards(unet)
    return replace(found, content=content, configs=configs, notes=(*notes, *told))


def _shards(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the weights of a folder of diffusers, whole, as a variant (fp16) or in shards, and what to say of them."""
    for suffix in ("safetensors", "bin"):
        stem = "diffusion_pytorch_model"
        if (file := folder / f"{stem}.{suffix}").is_file():
            return _weights(file), []
        variants = sorted(p for p in folder.glob(f"{stem}.*.{suffix}") if p.is_file())
        indices = sorted(folder.glob(f"{stem}.{suffix}.index*.json"))
        if len(variants) + len(indices) > 1:
            names = ", ".join(p.name for p in (*variants, *indices))
            raise ForeignError(f"{folder} has several weights ({names}); leave one of them there.")
        if variants:
            return _weights(variants[0]), [f"the weights of {variants[0].name}"]
        if indices:
            return _indexed(indices[0])
    raise ForeignError(f"{folder} has no diffusion_pytorch_model.safetensors or .bin, in any variant or in shards.")


def _indexed(index: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of the files that an index names; each file lies beside it and holds what the index says."""
    named = _config(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ForeignError(f"{index} has no weight_map from tensors to files.")
    tensors: dict[str, Any] = {}
    for name in sorted(set(named.values())):
        if name != Path(name).name or not (index.parent / name).is_file() or Path(name).suffix not in SUFFIXES:
            raise ForeignError(f"{index} names {name!r}, which is no file of weights beside it.")
        part = _weights(index.parent / name)
        said = {tensor for tensor, file in named.items() if file == name}
        if not isinstance(part, dict) or set(part) != said:
            raise ForeignError(f"{index} and {name} do not hold the same tensors.")
        tensors |= part
    return tensors, [f"the weights of {len(set(named.values()))} shards"]


def _sides(path: Path) -> dict[str, Any]:
    """Read a folder with the sides of a GAN, one file each: {"netG": ..., "netD": ...}."""
    named = {
        side: sorted(p for p in path.iterdir() if p.is_file() and p.suffix in SUFFIXES and p.name.startswith(side))
        for side in ("netG", "netD")
    }
    if not named["netG"] and (path / "recipe.json").is_file():
        raise ForeignError(f"{path} is a run already. Use it as it is: sfumato sample {path}")
    if not named["netG"]:
        raise ForeignError(
            f"{path} has neither config.json nor unet/config.json nor netG.pth; it is no folder of diffusers or a GAN."
        )
    for side, files in named.items():
        if len(files) > 1:
            have = ", ".join(p.name for p in files)
            raise ForeignError(
                f"{path} has {len(files)} files {side} ({have}). Give one of them, or a folder with one of each side."
            )
    return {side: _weights(files[0]) for side, files in named.items() if files}


def _weights(path: Path) -> Any:
    return read_tensors(path, ForeignError) if path.suffix == ".safetensors" else read_file(path)


def _config(path: Path) -> dict[str, Any]:
    # diffusers writes lambda_min_clipped as -Infinity; the readers of values refuse what must be finite
    return read_json(path, most=CONFIG_BYTES, finite=False, error=ForeignError)


def numbered(count: int) -> tuple[str, ...]:
    """Return class names where a file knows only their number."""
    return tuple(map(str, range(count)))


def side_in(name: str) -> int | None:
    """Return the image side that a file's name tells, as in 64x64 or imagenet64.

    >>> side_in("64x64_diffusion.pt"), side_in("imagenet64_uncond_100M_1500K.pt"), side_in("model.pt")
    (64, 64, None)
    """
    found = re.search(r"(\d+)x\1", name) or re.search(r"(?:imagenet|cifar|lsun|ffhq|celeba)[-_]?(\d+)", name)
    return int(found[1]) if found and found[1] in ("16", "32", "64", "128", "256", "512") else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of the weights of a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest() if len(files) > 1 else b"")
            if len(files) == 1:
                return hashlib.file_digest(handle, "sha256").hexdigest()
    return digest.hexdigest()
