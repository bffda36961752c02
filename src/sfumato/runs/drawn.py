"""Where commands leave the pictures of a run: they write by this table, and the report page reads by it.

    RUN/samples/     sample, demo, sweep, encode        sheets, strips, animations
    RUN/pictures/    picture                            one file a kind
    RUN/restored/    restore                            a folder a task and method; its sheet is the picture of it
    RUN/edited/      edit
    RUN/sheets/      train                              a sheet now and then, of fixed seeds

What `evaluate`, `likelihood`, `sweep --score` and `compress` draw is named in their result, RUN/results/*.json.
"""

from __future__ import annotations

from pathlib import Path

SAMPLES, PICTURES, RESTORED, EDITED, SHEETS = "samples", "pictures", "restored", "edited", "sheets"
SHOWN = {SAMPLES: "*", PICTURES: "*", RESTORED: "*/sheet.*", EDITED: "*", SHEETS: "*"}  # folder: which files of it
SUFFIXES = (".png", ".gif")


def drawn(run: Path) -> dict[str, list[Path]]:
    """Return the pictures that commands have left in a run, by folder, newest first.

    Arguments:
        run: Directory of the run.
    """
    found = {
        folder: [file for file in (run / folder).glob(which) if file.suffix in SUFFIXES]
        for folder, which in SHOWN.items()
    }
    return {folder: sorted(files, key=lambda f: (-f.stat().st_mtime, f.name)) for folder, files in found.items()}
