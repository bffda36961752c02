"""What made the numbers of a page, once: what is equal for all results of a run, what each adds, and the protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.report.results import Result, command_of, made_by, title_of


@dataclass(frozen=True)
class Made:
    """What made one or more results.

    Attributes:
        title: The run, or what was measured.
        command: What makes it again; "" for what several results share.
        facts: Name -> value, as text.
    """

    title: str
    command: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """A protocol: its id, in words, and every field of it as JSON."""

    id: str
    title: str
    text: str


def provenance(results: Sequence[Result]) -> list[tuple[Made, list[Made]]]:
    """Return, for every run, what its results share and what each of them adds."""
    by_run: dict[str, list[tuple[Result, dict[str, str]]]] = {}
    for result in results:
        if result["scores"] or result.get("command"):
            by_run.setdefault(str(result["run"]), []).append((result, _facts(result.get("provenance") or {})))
    found = []
    for run, members in by_run.items():
        first = members[0][1]
        equal = {k: v for k, v in first.items() if all(facts.get(k) == v for _, facts in members)}
        own = [
            Made(_title(result), command_of(result), {k: v for k, v in facts.items() if k not in equal})
            for result, facts in members
        ]
        found.append((Made(run, "", equal), own))
    return found


def protocols(results: Sequence[Result]) -> list[Protocol]:
    """Return every protocol once, without the provenance of the scores."""
    found: dict[str, Protocol] = {}
    for result in results:
        for score in result["scores"]:
            for one in (score, score.get("floor") or {}):
                protocol = one.get("protocol") or {}
                if key := protocol.get("protocol_id"):
                    identity = {k: v for k, v in protocol.items() if k not in ("provenance", "protocol_id")}
                    text = json.dumps(identity, indent=1, sort_keys=True)
                    found.setdefault(key, Protocol(key, title_of(protocol, one.get("name") or score["name"]), text))
    return list(found.values())


def _title(result: Result) -> str:
    scores = result["scores"]
    if not scores:
        return ", ".join(result.get("tables") or result.get("curves") or {"pictures": 0})
    against = title_of(scores[0].get("protocol") or {}, "").strip()
    return f"{', '.join(dict.fromkeys(str(s['name']) for s in scores))} {against}".strip()


def _facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return a provenance as one line a fact; a nested one has its path for a name."""
    found = {"made by": words} if (words := made_by(provenance)) else {}
    for key, value in provenance.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        for name, one in inner.items():
            label = f"{key}: {name}" if name else key
            found[label.replace("_", " ")] = one if isinstance(one, str) else json.dumps(one)
    return found
