"""DDPM as PyTorch ports of Ho's code store it (pytorch_diffusion, ddim): a state dict with ``temb.dense.0``."""

from __future__ import annotations

import re

from sfumato.interop.families._chain import chain_recipe
from sfumato.interop.foreign import Foreign, Imported
from sfumato.interop.keys import rename_ddpm
from sfumato.runs.recipe import Shape, part


def ddpm(found: Foreign) -> Imported | None:
    """DDPM's U-Net in the names of pytorch_diffusion and ddim.

    Arguments:
        found: The opened checkpoint.
    """
    tensors = found.tensors
    if "temb.dense.0.weight" not in tensors or "conv_in.weight" not in tensors:
        return None
    width, channels = tensors["conv_in.weight"].shape[:2]
    levels = 1 + max(int(m[1]) for name in tensors if (m := re.match(r"down\.(\d+)\.", name)))
    blocks = 1 + max(int(m[1]) for name in tensors if (m := re.match(r"down\.0\.block\.(\d+)\.", name)))
    mult = tuple(tensors[f"down.{i}.block.0.conv2.weight"].shape[0] // width for i in range(levels))
    attended = sorted({int(m[1]) for name in tensors if (m := re.match(r"down\.(\d+)\.attn\.", name))})
    resample = {} if levels == 1 or "down.0.downsample.conv.weight" in tensors else {"resample": "mean"}
    size = found.size or (16 << attended[0] if attended else 32)
    shape = Shape(int(channels), size, size)
    data, assumed = found.data(shape)
    network = part(
        "network",
        "ddpm",
        width=int(width),
        mult=mult,
        blocks=blocks,
        attention=tuple(size >> i for i in attended),
        **resample,
    )
    recipe = chain_recipe("imported-ddpm", data, shape, network, part("schedule", "linear", steps=1000))
    lines = ["schedule=linear schedule.steps=1000: the chain of the paper", assumed]
    if found.size is None:
        lines.insert(0, f"size {size}: the paper attends at 16x16 (--size says otherwise)")
    return Imported("ddpm", recipe, tensors, rename_ddpm, tuple(lines))
