"""Make a signed picture again: its own settings on the same run, then a comparison pixel by pixel."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.images import tile, to_uint8
from sfumato.core.reading import parse_json
from sfumato.data.decoding import decode
from sfumato.data.hashing import hash_image
from sfumato.report.save import place
from sfumato.report.signature import SignatureError, picture_of, read, settings_of, signed, told_settings
from sfumato.runs.drawn import SAMPLES
from sfumato.runs.identity import changed
from sfumato.runs.recipe import Recipe
from sfumato.runs.recipe_json import today
from sfumato.runs.run import Run

COLUMNS = 8  # of a sheet
GAP = 2  # pixels between its images


def again(run: Run, like: Path, out: Path | None, device: str) -> Path:
    """Make a signed picture again, write it, and say how far it is from the original.

    Arguments:
        run: That made it.
        like: The picture.
        out: Where the new one goes; RUN/samples/again-NAME.png unless given.
        device: Where to compute.

    Returns:
        Where it went.

    Raises:
        SignatureError: If the picture does not say how it was made, or was made by another checkpoint.
    """
    picture, made = read(like)
    for change, past in (("restore", "restored"), ("edit", "edited")):
        if change in made:
            raise SignatureError(
                f"{like} was {past} from another picture, which it carries. Drop it on the page of `sfumato app "
                f"{run.path}` to make it again, or use `sfumato {change}`."
            )
    settings = _settings(made, like)
    if "like_image" in settings and "like_image" not in made:
        raise SignatureError(f"{like} was made beside another image, which it does not carry. Use --like-image.")
    target = place(out or run.path / SAMPLES / f"again-{like.stem}.png")
    tree = {**run.recipe.to_json(), "sample": settings["sample"]}
    run, use = run.with_recipe(Recipe.from_json(tree)), settings["use"]
    mine = settings_of(run, use, device)
    try:
        image = _beside(made["like_image"], settings["like_image"]) if "like_image" in settings else None
        where = dict(settings.get("where", {}))
    except (ValueError, TypeError) as error:
        raise SignatureError(f"{like} says what was told in a way that cannot be read ({error}).") from None
    asked = told_settings(where, image, lender := run.lender(where, image))
    differ = changed(today(settings), mine | asked | {key: settings[key] for key in ("device", "torch")})
    if differ:
        lines = "\n".join(f"  {path}: {old} -> {new}" for path, (old, new) in differ.items())
        raise SignatureError(
            f"{like} was made by {settings['recipe']}, checkpoint {settings['checkpoint']}, and {run.path} is not what "
            f"made it:\n{lines}\nName the run that made it; one that was trained on since, or is guided by another "
            "model, makes other images."
        )
    images = _images(run, use, device, made, like, lambda seeds, labels: run.named(seeds, labels, where, image, lender))
    new = picture_of(images[0]) if "seed" in made else Image.fromarray(tile(images, min(COLUMNS, len(images)), GAP))
    target.parent.mkdir(parents=True, exist_ok=True)
    carried = {**made, "settings": json.dumps(mine | asked, sort_keys=True)}
    new.save(target, pnginfo=signed(new, carried, run.making(use).sentence))
    print(f"  {_difference(picture, new)}")
    for key in ("device", "torch"):
        if mine[key] != settings[key]:
            print(f"  made with {key} {settings[key]}, now {mine[key]}: rounding may differ")
    return target


def _settings(made: dict[str, Any], like: Path) -> dict[str, Any]:
    try:
        settings = parse_json(made["settings"], "The text", finite=False)
        _ = [settings[key] for key in ("recipe", "checkpoint", "use", "sample", "device", "torch")]
    except (ValueError, TypeError, KeyError) as error:
        raise SignatureError(f"{like} holds settings that cannot be read ({type(error).__name__}: {error}).") from None
    return dict(settings)


def _images(
    run: Run, use: str, device: str, made: dict[str, Any], like: Path, named: Callable[..., Label | None]
) -> Tensor:
    """Return the picture's images as uint8 (B, C, H, W)."""
    try:
        seeds = [int(s) for s in made.get("seeds", [made.get("seed")])]
        given = made.get("labels", [made.get("label")]) or [None]
        labels = None if None in given else torch.tensor([int(label) for label in given])
        told = named(seeds, labels)
        if "to" in made:
            weights = torch.tensor(made["mix"], dtype=torch.float64).reshape(-1)
            states = run.diffusion(use=use, device=device).mixed(seeds[0], int(made["to"]), weights, told)
            return to_uint8(deque(states, maxlen=1)[0].x).cpu()
        source = run.source(use=use, device=device)
        return to_uint8(source.floats(seeds, told), source.quantisation).cpu()
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise SignatureError(f"{like} names seeds that cannot be read ({type(error).__name__}: {error}).") from None


def _beside(text: str, hashed: str) -> Tensor:
    """Return the image that was told beside, which the picture carries as a PNG in base64.

    Raises:
        ValueError: If it is another than the settings say.
    """
    pixels = decode(base64.b64decode(text)).pixels
    if hash_image(pixels).hex() != hashed:
        raise ValueError("the image that it carries is not the one that was told")
    return torch.from_numpy(pixels)


def _difference(old: Image.Image, new: Image.Image) -> str:
    if old.size != new.size or old.mode != new.mode:
        return f"another size: {old.mode} {old.size} before, {new.mode} {new.size} now"
    most = int(np.abs(np.asarray(old, dtype=int) - np.asarray(new, dtype=int)).max())
    return "the same, pixel for pixel" if most == 0 else f"at most {most} of 255 levels from the original"
