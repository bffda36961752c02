"""``sfumato data``: look at data, find what is wrong with it, prepare it once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, refusal, refuse_idle

if TYPE_CHECKING:
    from sfumato.data.gathering import Shape

BAD = 2  # exit code of a source with bad files
SHEET, CLASSES = 64, 12  # images of a sheet, classes that are named
IDLE = {  # options that an action makes no use of
    "show": ("no_numbers",),
    "check": ("target", "split", "unlabelled", "no_numbers", "skip_bad"),
    "prepare": (),
}
SHOWN = f"facts, and a sheet of {SHEET} images"
SMALL, LARGEST = 16, 64  # sides in pixels: of images as small as digits, and the largest that a first model takes


def data(
    action: Annotated[Positional[Literal["show", "check", "prepare"]], arg(metavar="show|check|prepare")],
    source: Annotated[Positional[str], arg(metavar="SOURCE")],
    target: Annotated[Positional[str], arg(metavar="[OUT]", help_behavior_hint="")] = "",
    *,
    size: Count = None,
    channels: Count = None,
    filter: str = "lanczos",
    crop: Count = None,
    alpha: str = "refuse",
    cmyk: str = "refuse",
    split: str | None = None,
    unlabelled: bool = False,
    no_numbers: bool = False,
    skip_bad: bool = False,
    data_root: Folder = None,
) -> int:
    """Show a dataset, list every bad file of a source, or prepare a source as one zip.

        sfumato data show fashion-mnist
        sfumato data check photos/ --size 64
        sfumato data prepare photos/ photos-64.zip --size 64 --filter lanczos --channels 3

    A source is a folder, a .zip, an LMDB (lmdb:PATH) or an image dataset of Hugging Face (hub:OWNER/NAME, or its
    parquet and arrow files: hub:PATH). Its folders train, val and test, if it has them, are splits and not classes.
    Preparing that was stopped goes on where it was; one bad file ends it.

    Arguments:
        action: show (facts and a sheet), check (every fault; exit code 2 if there is one) or prepare (write a zip).
        source: A folder or .zip file, lmdb:PATH or hub:NAME; for show, any dataset of `sfumato list data` as well.
        target: For prepare, the new .zip file; for show, the sheet's .png.
        size: Side in pixels after a centred square crop and a resize; unless given, images must have one size.
        channels: 1 or 3 (2 or 4 with --alpha keep); unless given, all images must have the same.
        filter: Resize by nearest, box, bilinear, hamming, bicubic or lanczos.
        crop: Side of the centred square cut first; the largest unless given.
        alpha: Transparent pixels: refuse, or lay on black or white, or drop the transparency, or keep it as a channel.
        cmyk: Files of four inks: refuse, or convert without a colour profile.
        split: train, val, test or all; show takes all unless given, and prepare, of a source with splits, train.
        unlabelled: Ignore sub-folders and dataset.json.
        no_numbers: Prepare without the numbers that the source tells of its images, such as attributes.csv.
        skip_bad: Leave bad files out and count them.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    refuse_idle(data, locals(), IDLE[action], f"sfumato data {action}")
    print(f"sfumato data {action} {source}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.data.gathering import Shape

    shape = Shape(size, channels, filter, crop, alpha, cmyk)
    if action == "show":
        return show(source, split or "all", shape, not unlabelled, skip_bad, data_root, target)
    if action == "check":
        return checked(source, shape)
    if not target:
        raise refusal(f"Preparing needs the .zip file to write: sfumato data prepare {source} OUT.zip")
    return prepared(source, target, shape, split or "train", not unlabelled, not no_numbers, skip_bad)


def show(source: str, split: str, shape: Shape, labels: bool, skip_bad: bool, root: str | None, target: str) -> int:
    """Print what a dataset is, and draw a sheet of it if a target is named."""
    from sfumato.core.errors import printable
    from sfumato.data import load, sigma_data
    from sfumato.data.dataset import DataError
    from sfumato.report.save import save
    from sfumato.report.sheet import sheet
    from sfumato.report.table import text_table

    told = changed(shape)
    options = {name: value for name, value in told.items() if name not in ("size", "channels")}
    options |= ({} if labels else {"labels": False}) | ({"skip_bad": True} if skip_bad else {})
    try:
        found = load(source, split=split, root=root, size=shape.size, channels=shape.channels, options=options)
    except DataError:
        if target or not (facts := _of_many_sizes(source, shape)):
            raise
        print(text_table([{"field": name, "value": printable(value)} for name, value in facts.items()]))
        return 0
    facts = {
        "name": found.name,
        "split": split,
        "images": f"{len(found):,}",
        "shape": "x".join(map(str, found.shape)),
        "classes": ", ".join(found.classes[:CLASSES]) + (", ..." if len(found.classes) > CLASSES else "")
        or "(unlabelled)",
        "sigma_data": f"{sigma_data(found):.4f}",
        "rule": found.rule or "(all of it)",
        "left out": "; ".join(found.left_out) or "(nothing)",
        "content": found.content_hash[:16],
    }
    print(text_table([{"field": name, "value": printable(value)} for name, value in facts.items()]))
    if target:
        drawn = found.take(min(SHEET, len(found)), seed=0)
        picture = sheet(drawn.images, 8, title=found.name, caption=f"{len(drawn)} drawn with seed 0")
        print(f"  {save(picture, Path(target))}")
    if not {"filter", "crop"} & options.keys():  # those are of `prepare` alone
        _show_training(source, found.shape, told | options)
    return 0


def changed(shape: Shape) -> dict[str, Any]:
    """Return what a person asked images to become: fields that differ from what is usual."""
    return {name: value for name, value in vars(shape).items() if value != getattr(type(shape)(), name)}


def _of_many_sizes(source: str, shape: Shape) -> dict[str, str]:
    """Return what files are that become a dataset once they are resized; {} if that is not all they need."""
    from sfumato.data.checking import check_parts
    from sfumato.data.gathering import sizes_of
    from sfumato.data.sources import listings_of

    report = check_parts(listings_of(source), shape)
    if not report.faults or not all(fault.size for fault in report.faults):
        return {}
    return {
        "name": str(report.path),
        "images": f"{report.count:,}",
        "classes": ", ".join(report.classes[:CLASSES]) or "(unlabelled)",
        "most have one size": f"{report.count - len(report.faults):,}",
        "others": sizes_of(report.faults),
        "next": "--size N resizes all of them (data.size=N in training)",
    }


def _show_training(source: str, shape: tuple[int, int, int], fields: dict[str, Any]) -> None:
    """Print the command that trains a first small model of images, if the networks of its recipes take them."""
    from sfumato.cli._next import show_next

    channels, height, width = shape
    if channels not in (1, 3) or height != width or height % 4 or height > LARGEST:
        return
    recipe = "edm-digits" if height <= SMALL else "edm-fashion-mnist-cpu"
    words = [
        f"data.{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in fields.items()
    ]
    words = ["train", recipe, "--out", f"runs/{Path(source).stem}", f"data.name={source}", *words, "shape=none"]
    show_next(([*words, "--minutes", "1"], "a first model in a minute; more minutes make a better one"))


def checked(source: str, shape: Shape) -> int:
    """Print every fault and remark of a source; return 2 if there is a fault."""
    from sfumato.cli._next import show_next
    from sfumato.data.checking import check_parts
    from sfumato.data.sources import listings_of

    report = check_parts(listings_of(source), shape)
    print(report)
    sides = [int(side) for finding in report.faults for side in finding.size.split("x") if side]
    words = [word for name, value in changed(shape).items() for word in (f"--{name}", str(value))]
    others = any(not finding.size for finding in report.faults)
    if sides and shape.size is None:
        words += ["--size", str(max(4, min(min(sides), LARGEST) // 4 * 4))]
    if len(report.faults) < report.count:
        words += ["--skip-bad"] * others
        rest = "what is left without the bad files" if others else SHOWN
        show_next((["data", "show", source, f"{Path(source).stem}.png", *words], rest))
    return BAD if report.faults else 0


def prepared(source: str, target: str, shape: Shape, split: str, labels: bool, numbers: bool, skip_bad: bool) -> int:
    """Write one split of a source, or all of a source that has none, as one zip."""
    from sfumato.cli._next import show_next
    from sfumato.data.listing import passed_over
    from sfumato.data.preparing import prepare_listing
    from sfumato.data.sources import listing_of

    part, listing = listing_of(source, split)
    made = prepare_listing(listing, Path(target), shape, labels=labels, numbers=numbers, skip_bad=skip_bad)
    named = f"the {part} split: " if part else ""
    bad = sum(made.skipped.values())
    print(f"  {named}{made.count:,} images, {bad:,} bad ones left out, {made.resumed:,} done by an earlier run")
    for reason, count in made.skipped.items():
        print(f"  left out: {count:,} ({reason})")
    if listing.others:
        print(f"  passed over: {passed_over(listing)}")
    print(f"Written to {made.path}.")
    show_next((["data", "show", str(made.path), f"{made.path.stem}.png"], SHOWN))
    return 0
