"""DCGAN: state dicts of PyTorch's example, whose two sides are plain sequences of layers.

    netG  main.0 convT, .1 BatchNorm, .3 convT, .4 BatchNorm, ..., .3n convT           n = layers of `up`
    netD  main.0 conv, .2 conv, .3 BatchNorm, ..., .(3n-1) conv to one logit           n = layers of `down`

The numbers left out are activations, so they tell that the layers are the example's. Widths, length of the latent,
channels and, with the example's strides (1 for the first layer of netG, 2 for the others), the side of the images are
in the shapes. Names before the numbers do not matter: a file may hold one side or both, flat or nested.

References:
    Radford, Metz, Chintala. Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks. 2016. https://arxiv.org/abs/1511.06434
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sfumato.core.find import find
from sfumato.interop.foreign import Foreign, Imported
from sfumato.interop.keys import State, rename
from sfumato.interop.tensors import ForeignError
from sfumato.runs.recipe import Recipe, Shape, Train, part

LAYER = re.compile(r"(?P<owner>(?:.+\.)?)(?P<layer>\d+\.(?:weight|bias|running_mean|running_var|num_batches_tracked))")
OURS = re.compile(r"(?P<side>generator|discriminator)\.(?P<list>convs|norms|last)(?:\.(?P<place>\d+))?")
KERNEL = 4  # of every layer but the one that meets the coarsest map
COUNTER = "num_batches_tracked"  # of BatchNorm; changes no output, and files older than torch 0.4.1 have none


def dcgan(found: Foreign) -> Imported | None:
    """Generators, alone or with their discriminator, in the layers of PyTorch's DCGAN example.

    Arguments:
        found: The opened checkpoint.

    Raises:
        ForeignError: For a discriminator alone, two generators, sides that do not fit, or layers the example has not.
    """
    tensors = _flat(found.content)
    groups = _groups(tensors)
    generators = [owner for owner, layers in groups.items() if _is_generator(layers)]
    judges = [owner for owner, layers in groups.items() if owner not in generators and _is_discriminator(layers)]
    if not generators and not judges:
        return None
    if not generators:
        raise ForeignError(
            f"{found.path} holds a discriminator only, which makes no images. Give netG, or a folder with both."
        )
    if len(generators) > 1 or len(judges) > 1:
        names = ", ".join(owner.rstrip(".") or "(no name)" for owner in (*generators, *judges))
        raise ForeignError(f"{found.path} holds more than one network of a side ({names}). Give a file with one each.")
    up_layers = _convolutions(groups[generators[0]])
    latent, channels = up_layers[0].shape[0], up_layers[-1].shape[1]
    up = tuple(layer.shape[1] for layer in up_layers[:-1])
    _check_kernels(found, "netG", up_layers[1:])
    side = up_layers[0].shape[2]
    size = side << len(up)
    shape, notes = Shape(channels, size, size), []
    if judges:
        down = _down(found, groups[judges[0]], shape, len(up))
    else:
        down = tuple(reversed(up))
        notes.append("the file has no discriminator: the run's is untrained; images and scores do not depend on it")
    notes += [
        "BatchNorm takes its running statistics, as after eval(); the example's own pictures take their batch's",
        "a GAN cannot be trained further from imported weights: the optimisers' state is not in the run",
    ]
    data, line = found.data(shape)
    base: Recipe = find("recipe", "dcgan-lsun-bedroom")()
    recipe = replace(
        base,
        name="imported-dcgan",
        data=data,
        network=part("network", "dcgan", latent=latent, up=up, down=down, prior="normal"),
        train=Train(batch=base.train.batch, optimizer=base.train.optimizer),
        sigma_data=0.5,
        shape=shape,
    )
    prior = "network.prior=normal: weights do not tell; the paper's latents are uniform (network.prior=uniform)"
    owners = {"generator": generators[0]} | ({"discriminator": judges[0]} if judges else {})

    def named(state: State, network: nn.Module) -> dict[str, Tensor]:
        return rename_dcgan(state, network, owners)

    untrained = () if judges else ("discriminator",)
    return Imported("dcgan", recipe, tensors, named, (prior, line), tuple(notes), untrained)


def _down(found: Foreign, layers: Mapping[str, Tensor], shape: Shape, doublings: int) -> tuple[int, ...]:
    """Return the widths of a discriminator, which must judge images of the generator's shape."""
    convolutions = _convolutions(layers)
    _check_kernels(found, "netD", convolutions[:-1])
    down = tuple(layer.shape[0] for layer in convolutions[:-1])
    channels, side = convolutions[0].shape[1], convolutions[-1].shape[2] << len(down)
    if (channels, side, len(down)) != (shape.channels, shape.height, doublings):
        raise ForeignError(
            f"netG of {found.path} makes images of {shape.channels}x{shape.height}x{shape.width} in {doublings} "
            f"doublings, and netD judges {channels}x{side}x{side} in {len(down)} halvings; they are no pair. Import "
            "netG alone."
        )
    return down


def rename_dcgan(state: State, network: nn.Module, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a state dict of the example in our names; a side that is not there keeps the network's own weights.

    Arguments:
        state: The original, name -> tensor.
        network: Our pair of the same widths.
        owners: "generator" and perhaps "discriminator" -> what stands before its layers' numbers.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    own = network.state_dict()
    counted = any(name.endswith(COUNTER) for name in state)
    halvings = sum(re.fullmatch(r"discriminator\.convs\.\d+\.weight", name) is not None for name in own)

    def names(module: str, leaf: str) -> tuple[str, ...]:
        place = OURS.fullmatch(module)
        if place is None:
            raise ValueError(f"{module} has no counterpart in the example, whose pairs are unlabelled.")
        if place["side"] not in owners or (leaf == COUNTER and not counted):
            return ()
        up = place["side"] == "generator"
        step = halvings if place["list"] == "last" else int(place["place"])
        number = 3 * step + (place["list"] == "norms") if up else max(3 * step - (place["list"] != "norms"), 0)
        return (f"{owners[place['side']]}{number}.{leaf}",)

    def convert(name: str, given: tuple[Tensor, ...]) -> Tensor:
        if given and given[0].shape != own[name].shape:
            raise ValueError(f"{name} is {tuple(own[name].shape)}, and the file has {tuple(given[0].shape)} for it.")
        return given[0] if given else own[name].clone()

    return rename(state, network, names, convert)


def _flat(content: Any) -> dict[str, Tensor]:
    """Return the tensors of the state dicts in a file as one, each name after its place; of a bare one, its own."""
    if not isinstance(content, dict):
        return {}
    nested = {
        key: value
        for key, value in content.items()
        if isinstance(value, dict) and value and all(isinstance(each, Tensor) for each in value.values())
    }
    if nested:
        return {f"{key}.{name}": tensor for key, state in nested.items() for name, tensor in state.items()}
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return sequences of layers by what stands before their numbers: "main." -> {"0.weight": ...}."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if found := LAYER.fullmatch(name):
            groups.setdefault(found["owner"], {})[found["layer"]] = tensor
    return groups


def _shape(layers: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(layers[name].shape) if name in layers else ()


def _is_generator(layers: Mapping[str, Tensor]) -> bool:
    """Return whether it begins with a transposed convolution, (in, out, k, k), and a normalisation of `out`."""
    first = _shape(layers, "0.weight")
    return len(first) == 4 and _shape(layers, "1.weight") == first[1:2]


def _is_discriminator(layers: Mapping[str, Tensor]) -> bool:
    """Return whether it begins with two convolutions, (out, in, k, k), the second normalised or the last."""
    first, second = _shape(layers, "0.weight"), _shape(layers, "2.weight")
    if len(first) != 4 or len(second) != 4 or second[1] != first[0] or "1.weight" in layers:
        return False
    return _shape(layers, "3.weight") == second[:1] or ("3.weight" not in layers and second[0] == 1)


def _convolutions(layers: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the weights of the convolutions in the order of their numbers."""
    found = {int(name.split(".")[0]): t for name, t in layers.items() if name.endswith(".weight") and t.ndim == 4}
    return [found[number] for number in sorted(found)]


def _check_kernels(found: Foreign, side: str, layers: list[Tensor]) -> None:
    for layer in layers:
        if layer.shape[2:] != (KERNEL, KERNEL):
            kernel = "x".join(map(str, layer.shape[2:]))
            raise ForeignError(
                f"{side} of {found.path} has a kernel of {kernel}; those of the example are {KERNEL}x{KERNEL}, and no "
                "other network here has this layout."
            )
