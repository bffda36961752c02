"""Import: from another project's checkpoint to an ordinary run.

The file is opened without executing anything in it, a family recognises it and says what it is in our parts, the
network is built and every tensor is placed. A tensor that is left over, missing or of another shape is an error, and
then nothing is written. What the file does not say is listed, with the field that changes it. The run holds the
weights as "raw"; it is sampled, evaluated and exported like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.core.find import entries, find
from sfumato.core.writing import replace_json
from sfumato.interop.foreign import Foreign, Imported, open_foreign, sha256_of
from sfumato.interop.tensors import ForeignError
from sfumato.processes.machine import describe
from sfumato.runs import checkpoint
from sfumato.runs.check import check
from sfumato.runs.override import override, with_warnings
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run


@dataclass(frozen=True)
class Import:
    """Say what an import made.

    Attributes:
        run: The run that was written.
        found: The checkpoint as it was recognised.
        parameters: Learned values that came from the file.
    """

    run: Run
    found: Imported
    parameters: int


def recognise(found: Foreign) -> Imported:
    """Return what a checkpoint is.

    Raises:
        ForeignError: If no family knows it.
    """
    families = entries("family")
    for name, family in families.items():
        try:
            made: Imported | None = family(found)
        except ForeignError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:  # what its family has
            said = f"{found.path} looks like {name}, but its tensors or options do not fit: {error!r}."
            raise ForeignError(said) from None
        if made is not None:
            aside = f"left aside: {', '.join(found.beside)}, which the file holds beside {found.under}"
            return replace(made, notes=(*made.notes, aside)) if found.beside else made
    names = ", ".join(list(found.tensors)[:3]) or type(found.content).__name__
    raise ForeignError(
        f"{found.path} is of no family that is known ({', '.join(families)}). It begins with {names}. "
        "--recipe NAME helps only if its tensors are named as in one of them."
    )


def import_run(
    path: Path | str,
    out: Path | str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    size: int | None = None,
    order: str | None = None,
    raw: bool = False,
    ema: bool = False,
) -> Import:
    """Make a run of another project's checkpoint.

    Arguments:
        path: File, or folder in diffusers' layout, or folder with a GAN's netG and netD.
        out: Directory of the run; must not hold one.
        recipe: Recipe whose fields are taken instead of those inferred.
        overrides: Fields to set, in the order given.
        size: Side of the images, where the file does not say it.
        order: Order of ADM's attention channels, "legacy" or "new".
        raw: Take the trained weights where the file also has their average.
        ema: Take unet_ema/ of a folder of diffusers in place of unet/.

    Returns:
        The run and what it was taken for.

    Raises:
        ForeignError: If the file is unsafe, damaged, unknown, or its tensors do not fit; nothing is written.
        RecipeError: If `out` holds a run, or the fields do not fit together.
    """
    path, out = Path(path).expanduser(), Path(out)
    if (out / "recipe.json").exists():
        raise RecipeError(f"{out} holds a run already. Give another --out.")
    found = recognise(open_foreign(path, size=size, order=order, raw=raw, ema=ema))
    if idle := [name for name, given in {"order": order, "raw": raw}.items() if given and name not in found.heeded]:
        raise ForeignError(f"{path} is of {found.family}, where --{idle[0]} has nothing to choose. Leave it out.")
    chosen = found.recipe
    if size is not None and chosen.shape is not None and chosen.shape.height != size:
        raise ForeignError(f"The weights in {path} make images of side {chosen.shape.height}; got --size {size}.")
    if recipe is not None:  # what was inferred is replaced, but for what the reading of the file itself took
        named: Recipe = find("recipe", recipe)()
        kept = (a for a in found.assumed if "(--" in a and not (named.shape and a.startswith("size ")))
        found = replace(found, assumed=tuple(kept))
        chosen = replace(named, shape=named.shape or chosen.shape, sigma_data=named.sigma_data or 0.5, ema=chosen.ema)
    chosen = replace(chosen, train=replace(chosen.train, precision="fp32"))  # the weights as they are
    chosen = override(chosen, with_warnings(overrides))
    planned = plan(chosen)
    check(planned)
    network = planned.build_network()
    tensors, converted = _single(found.tensors)
    try:
        weights = found.rename(tensors, network)
        _check_values(weights, network)
        network.load_state_dict(weights)
    except (ValueError, LookupError, AttributeError) as error:
        told = f"network={chosen.network.name} is laid out otherwise ({error})."
        told = str(error.args[0]) if error.args and not isinstance(error, AttributeError) else told
        raise ForeignError(f"{path} was taken for {found.family}, but its tensors do not fit: {told}") from None
    fields = [text.partition("=")[0].strip() for text in overrides]
    assumed = tuple(a for a in found.assumed if not any(f in a for f in fields))
    found = replace(found, recipe=chosen, assumed=assumed, notes=(*found.notes, *converted))
    about = {
        "recipe": chosen.to_json(),
        "fingerprint": {},
        "machine": describe("cpu"),
        "imported": {
            "file": path.name,
            "sha256": sha256_of(path),
            "family": found.family,
            "assumed": list(found.assumed),
            "notes": list(found.notes),
            "untrained": list(found.untrained),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    state = {"seen": 0, "step": 0, "elapsed": 0.0, "skipped": 0, "recipe": chosen.to_json()}
    checkpoint.save(out / "checkpoints", 0, {"network": dict(network.state_dict())}, state)
    replace_json(out / "recipe.json", about)
    placed = (p for name, p in network.named_parameters() if name.split(".")[0] not in found.untrained)
    return Import(Run.open(out), found, sum(p.numel() for p in placed))


def _check_values(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """Refuse weights that are whole numbers where the network's are real, or that are not finite."""
    ours = network.state_dict()
    for name, tensor in state.items():
        if name in ours and ours[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name} holds {kind}: quantised weights are not read; give the float32 or float16 file.")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise ValueError(f"{name} has {count} values that are not finite (NaN or infinite); the file is damaged.")


def _single(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors with every real number in float32, and a note of those that were not."""
    other: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            other[tensor.dtype] = other.get(tensor.dtype, 0) + 1
    notes = [f"{count} tensors of {str(dtype).removeprefix('torch.')} became float32" for dtype, count in other.items()]
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, notes
