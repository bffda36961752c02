"""``sfumato studies``: one page over the results of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, refusal


def studies(
    folder: Annotated[Positional[str], arg(metavar="[DIR]")] = "docs/results/studies", *, out: Folder = None
) -> int:
    """Write one page over the results of studies: what held, what did not, what is undecided.

    Each study's orderings are first answered anew from its stored scores, and its page is written anew; nothing is
    trained or judged.

    Arguments:
        folder: Where results of `sfumato study` lie, at any depth.
        out: The page; DIR.md unless given.
    """
    print(f"sfumato studies {folder}", flush=True)

    from sfumato.core.reading import with_a_name
    from sfumato.core.writing import replace_text
    from sfumato.experiments.stored import renew
    from sfumato.experiments.summary import results_of, summary

    where = with_a_name(Path(folder))
    if not where.is_dir():
        raise refusal(f"{where} is not a folder. Run a study into one: sfumato study NAME --out {where}/NAME")
    page = Path(out) if out else where.with_name(f"{where.name}.md")
    anew = sum(renew(tree) for tree in results_of(where))
    results = results_of(where)
    replace_text(page, summary(results, page))
    print(f"  {len(results)} results, {anew} answered anew -> {page}")
    return 0
