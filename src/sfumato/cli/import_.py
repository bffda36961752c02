"""``sfumato import``: another project's checkpoint as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Overrides


def import_(
    checkpoint: Annotated[Positional[str], arg(metavar="FILE_OR_FOLDER")],
    overrides: Overrides = (),
    *,
    out: Folder = None,
    recipe: Name = None,
    size: Count = None,
    order: Name = None,
    raw: bool = False,
    ema: bool = False,
) -> int:
    """Make a run of another project's checkpoint: DDPM, diffusers, iDDPM, ADM, score SDE, EDM, EDM2 or DCGAN.

    The file is read as data: no code in it is run. What it is becomes a recipe, which is printed with everything that
    the file does not say and was assumed. Weights that are left over or missing are an error.

        sfumato import edm-cifar10-32x32-uncond-vp.pkl --out runs/edm
        sfumato import 64x64_diffusion.pt --out runs/adm64 data.name=folder:imagenet

    Arguments:
        checkpoint: A .pt, .pth, .ckpt, .pkl or .safetensors file, or a folder: of diffusers, or a GAN's netG and netD.
        overrides: Fields of the recipe to set, e.g. network.heads=4.
        out: The run's directory; runs/NAME of the file unless given.
        recipe: Take this recipe instead of inferring one; see `sfumato list recipes`.
        size: Side of the images, where the file does not tell.
        order: Order of ADM's attention channels: legacy or new.
        raw: Take the trained weights where the file also holds their average.
        ema: Take unet_ema/ of a folder of diffusers in place of unet/.
    """
    print(f"sfumato import {checkpoint}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli._next import sampling, show_next
    from sfumato.cli.explain import table
    from sfumato.interop.importing import import_run

    folder = out or f"runs/{Path(checkpoint).resolve().stem}"
    made = import_run(checkpoint, folder, recipe=recipe, overrides=overrides, size=size, order=order, raw=raw, ema=ema)
    print(table([Path(checkpoint).name], [made.run.recipe]))
    for line in made.found.notes:
        print(f"  note: {line}")
    for line in made.found.assumed:
        print(f"  assumed: {line}")
    print(f"{folder}: {made.found.family}, {made.parameters:,} parameters, all placed.")
    show_next(*sampling(made.run))
    return 0
