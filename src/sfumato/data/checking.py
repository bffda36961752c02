"""List everything that is wrong or unusual in a folder or archive of images, before a long run meets it.

A *fault* stops the loading; a *remark* is converted without loss but is worth knowing (a palette, 16-bit grey, an
opaque alpha channel). A file that differs in size or channels from most of the others is a fault unless a `size` or
`channels` makes them equal; many sizes are counted, not listed. Files that are no images by their names are counted
too. Exact duplicates are counted, because they are drawn more often than others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.core.errors import printable
from sfumato.data.dataset import DataError
from sfumato.data.gathering import Shape, attributes_of, read_all, sizes_of
from sfumato.data.listing import TABLE_FILE, Listing, labels_of, passed_over
from sfumato.data.sources import listings_of

NAMED = 3  # images of another size that are named one by one


@dataclass(frozen=True)
class Finding:
    """Name a file and what is wrong or unusual about it.

    Arguments:
        name: The file within the source, or "" for the source as a whole.
        reason: Description of the fault or the remark.
        fatal: Whether loading fails because of it.
        size: Width and height, of an image that is bad only because most have others; "" elsewhere.
    """

    name: str
    reason: str
    fatal: bool
    size: str = ""


@dataclass(frozen=True)
class Report:
    """Hold the outcome of a check.

    Arguments:
        path: Path of the folder or archive.
        count: Number of image files.
        findings: Faults and remarks in the order of the names.
        duplicates: How many files repeat the exact pixels of an earlier one.
        classes: Class names; () if unlabelled.
        others: Files that are no images by their names, in words; "" if there are none.
        splits: Number of image files of each official split; under "" if there are none.
        attributes: Names of the numbers of its attributes.csv; () if it has none.
    """

    path: Path
    count: int
    findings: tuple[Finding, ...]
    duplicates: int
    classes: tuple[str, ...]
    others: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that stop the loading."""
        return tuple(f for f in self.findings if f.fatal)

    def __str__(self) -> str:
        told = [f for f in self.findings if not f.size] if sum(bool(f.size) for f in self.findings) > NAMED else None
        lines = [
            f"{'BAD ' if f.fatal else 'note'}  {printable(f.name or str(self.path))}: {printable(f.reason)}"
            for f in (self.findings if told is None else told)
        ]
        if told is not None:
            count = len(self.findings) - len(told)
            lines.append(
                f"BAD   {count:,} images have other sizes than most: {sizes_of(self.findings)}. --size N "
                "resizes all of them."
            )
        lines += [f"note  passed over: {self.others}"] if self.others else []
        notes = len(self.findings) - len(self.faults)
        kinds = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        named = ", ".join(f"{part} {count:,}" for part, count in self.splits.items() if part)
        kinds += f"; splits {named}" if named else ""
        kinds += f"; attributes {printable(', '.join(self.attributes))}" if self.attributes else ""
        found = f"{len(self.faults):,} bad, {notes:,} unusual, {self.duplicates:,} exact duplicates."
        return "\n".join([*lines, f"{printable(str(self.path))}: {self.count:,} images, {kinds}; {found}"])


def check(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    alpha: str = "refuse",
    cmyk: str = "refuse",
) -> Report:
    """Read every image of a folder or archive and report each bad or unusual file.

    Arguments:
        path: A folder or a .zip file.
        size: Side the images will be resized to; None demands one size.
        channels: Channels they will be converted to, 1 or 3; None demands one number.
        alpha: Treatment of transparency: "refuse", "black", "white", "drop" or "keep".
        cmyk: Treatment of CMYK files: "refuse" or "convert".

    Returns:
        The report; `str` of it is the listing to print.

    Raises:
        ValueError: If `alpha` is unknown. A missing, unsafe or damaged source is a finding, not an exception.
    """
    try:
        return check_parts(listings_of(str(path)), Shape(size=size, channels=channels, alpha=alpha, cmyk=cmyk))
    except DataError as error:
        return Report(Path(path), 0, (Finding("", str(error), True),), 0, ())


def check_parts(parts: Mapping[str, Listing], shape: Shape) -> Report:
    """Read every image of an opened source and report each bad or unusual one.

    Arguments:
        parts: The opened source by its official splits; under "" if it has none.
        shape: Size and channels that every image will have.
    """
    path = next(iter(parts.values())).path
    findings: list[Finding] = []
    digests: Counter[bytes] = Counter()
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    for part, listing in parts.items():
        try:
            found = read_all(listing, shape)
        except DataError as error:
            findings.append(Finding("", str(error), True))
            continue
        try:
            labels = labels_of(listing)
            classes = classes or (() if labels is None else labels[1])
        except DataError as error:
            findings.append(Finding("", str(error), True))
        try:
            if TABLE_FILE in listing.others:
                attributes, _ = attributes_of(listing)(listing.names)
        except DataError as error:  # a remark: nothing reads it unless data.attributes names a column
            findings.append(Finding(TABLE_FILE, str(error), False))
        counts[part] = len(found)
        for f in found:
            findings += [Finding(f.name, f.fault, True, f.size)] if f.fault else []
            findings += [Finding(f.name, remark, False) for remark in f.remarks]
        digests.update(f.digest for f in found if f.digest)
    others = "; ".join(filter(None, map(passed_over, parts.values())))
    repeated = digests.total() - len(digests)
    return Report(path, sum(counts.values()), tuple(findings), repeated, classes, others, counts, attributes)
