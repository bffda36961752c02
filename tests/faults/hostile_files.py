"""More files that nobody meant: of a run that goes on, coded files, studies, searches, grids, tables, and requests.

Each method takes a random generator, changes a copy of a seed, and returns the words of a command; `Fuzz` in
`hostile` collects them by name. A request of the playground is not a command: its words say what was asked, and
`Fuzz.answer_to` knows how.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.hostile_changes import (
    TEXTS,
    VALUES,
    changed_bytes,
    changed_json,
    changed_kind,
    changed_tree,
    huge_png,
    png,
    settle,
)

SCALE = 2  # of a mask or picture that does not fit
STUDY = {
    "name": "any",
    "scale": "tiny",
    "question": "Which?",
    "command": "sfumato study any",
    "metrics": ["fd"],
    "n": 100,
    "seeds": [0],
    "orderings": [{"claim": "a < b", "source": "", "words": "seen", "holds": True}],
    "rows": [{"row": "a", "scores": {"fd": {"name": "FD", "value": 1.0, "interval": [0.9, 1.1], "floor": None}}}],
}

GRID = {"name": "computed-3", "sampler": "heun", "alphas": [1.0, 1.0, 1.0], "sigmas": [80.0, 2.0, 0.1], "weights": "0"}
CELLS = [
    "",
    "nan",
    "1e39",
    "-1e400",
    "1_0",
    "\u0663",
    '"',
    "a,b",
    "\0",
    "x" * 200_000,
    "../a.png",
    "=1+1",
    "1" * 5000,
    "\x1b[31m",
]


def request(r: random.Random, picture: str) -> tuple[str, str, bytes]:
    """Return the method, path and body of a call that a page would make."""
    way = {"sampler": "heun", "sampler_options": {"churn": 1.0}, "grid": "karras", "grid_options": {"steps": 2}}
    images = {"seed": 3, "count": 2, "label": "each", "ways": [way | {"guidance": 1.0, "use": None, "run": 0}]}
    box = {"picture": picture, "mask": None, "task": "inpaint", "task_options": {"mask": "half"}, "method": "moment"}
    calls = [
        ("POST", "/images", images),
        ("POST", "/images", images | {"to": 9, "count": 3}),
        ("POST", "/changes", images | {"label": "none", "restore": box | {"method_options": {}}}),
        ("POST", "/changes", images | {"label": 1, "edit": {"picture": picture, "mask": picture, "strength": 0.5}}),
    ]
    method, path, tree = r.choice(calls)
    return method, path, json.dumps(tree).encode()


class HostileFiles:
    """The kinds; what they need of `Fuzz` is named here."""

    seeds: Path
    place: Path
    run: Path
    small: list[str]
    main: Callable[[list[str]], int]
    asked: tuple[str, str, bytes]
    searched: list[str]

    def _copy(self, name: str) -> Path:
        raise NotImplementedError

    def make_files(self) -> None:
        """Make the seeds: a coded file, an average, a log as a table, a study, pictures, a playground."""
        from sfumato.app._models import Model
        from sfumato.app._request import Limits
        from sfumato.app._server import playground

        r = random.Random(3)
        for name in ("picture.png", "mask.png"):
            (self.seeds / name).write_bytes(png(r))
        quiet = ["--device", "cpu"]
        coded = ["--n", "1", "--steps", "3", "--search", "8", "--out", str(self.seeds / "coded.sfm")]
        assert self.main(["compress", str(self.run), *coded, *quiet]) == 0
        assert self.main(["ema", str(self.run), "--width", "0.08"]) == 0
        shared = [word for word in self.small if not word.startswith(("ema.", "train.optimizer.lr", "train.evaluate"))]
        self.searched = ["search", "edm-digits", *shared, "train.optimizer.lr=0.01,0.02", "--trials", "1", "--n", "40"]
        assert self.main([*self.searched, "--out", str(self.seeds / "search"), "--device", "cpu"]) == 0
        (self.seeds / "studies").mkdir()
        (self.seeds / "studies" / "any.json").write_text(json.dumps(STUDY))
        self.app = playground([Model(self.run, "cpu")], Limits(seconds=5), "127.0.0.1")

    def _changed(self, file: Path, r: random.Random) -> None:
        if r.random() < 0.1:
            changed_kind(file, r)
        elif file.suffix == ".json":
            changed_json(file, r)
        else:
            file.write_bytes(changed_bytes(file.read_bytes(), r))

    def try_going_on(self, r: random.Random) -> list[str]:
        """A run that goes on from files that were changed, or ends at once as it is finished."""
        run = self._copy("run")
        names = ["recipe.json", "metrics.jsonl", "metrics.csv", "scores.jsonl", "best/recipe.json", "coding.json"]
        folders = [
            *(run / "checkpoints").iterdir(),
            *(run / "snapshots").iterdir(),
            *(run / "best/checkpoints").iterdir(),
        ]
        files = [run / name for name in names] + [next(r.choice(folders).glob("state.json"))]
        file = r.choice(files)
        self._changed(file, r)
        if file.name == "state.json" and r.random() < 0.8:
            settle(file.parent)
        more = r.choice(([], ["train.images=192", "--allow", "train.images"]))
        return ["train", "edm-digits", *self.small, *more, "--out", str(run), "--device", "cpu", "--quiet"]

    def try_best_and_averages(self, r: random.Random) -> list[str]:
        run = self._copy("run")
        average = next((run / "averages").glob("*/step-*"))
        folder = r.choice([average, next((run / "best" / "checkpoints").glob("step-*"))])
        file = r.choice([*folder.iterdir(), run / "best" / "recipe.json"])
        self._changed(file, r)
        if file.parent == folder and file.name != "MANIFEST.json" and r.random() < 0.8:
            settle(folder)
        use = ["sample", str(run), "--use", average.parent.name, "--n", "2"]
        best = ["sample", str(run / "best"), "--n", "2"]
        return [*r.choice([use, best, ["evaluate", *best[1:2], "--n", "50"]]), "--device", "cpu"]

    def try_coded(self, r: random.Random) -> list[str]:
        if r.random() < 0.2:
            run = self._copy("run")
            self._changed(run / "coding.json", r)
            words = ["compress", str(run), "--n", "1", "--steps", "3", "--search", "8", "--device", "cpu"]
            return [*words, "--out", str(self.place / "c.sfm")]
        file = self._copy("coded.sfm")
        self._changed(file, r)
        cut = ["--first", str(r.choice([0, 10, 100, -1, 10**18]))] if r.random() < 0.3 else []
        return ["decompress", str(self.run), str(file), *cut, "--out", str(self.place / "d.png"), "--device", "cpu"]

    def try_study(self, r: random.Random) -> list[str]:
        folder = self._copy("studies")
        self._changed(folder / "any.json", r)
        return ["studies", str(folder), "--out", str(self.place / "page.md")]

    def try_grid(self, r: random.Random) -> list[str]:
        """A grid that was computed for a run."""
        run = self._copy("run")
        (run / "grids").mkdir()
        file = run / "grids" / "computed-3.json"
        file.write_text(json.dumps(GRID))
        self._changed(file, r)
        return ["sample", str(run), "--grid", "computed-3", "--n", "2", "--device", "cpu"]

    def try_search(self, r: random.Random) -> list[str]:
        """A search that goes on, or ends at once as it is finished."""
        folder = self._copy("search")
        self._changed(r.choice([folder / "search.json", folder / "trials.jsonl"]), r)
        return [*self.searched, "--out", str(folder), "--device", "cpu"]

    def try_attributes(self, r: random.Random) -> list[str]:
        """A table of attributes beside images."""
        folder, table = self._copy("folder"), self.place / "folder" / "attributes.csv"
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
        rows = [["file", "angle", "kind"], *([name, str(i), str(i % 2)] for i, name in enumerate(files))]
        if r.random() < 0.6:
            r.choice(rows)[r.randrange(3)] = r.choice(CELLS)
        table.write_text("\n".join(map(",".join, rows)) + "\n")
        if r.random() < 0.5:
            self._changed(table, r)
        words = [
            f"data.name=folder:{folder}",
            "data.attributes=angle",
            "data.test=0.25",
            "train.images=16",
            "train.batch=8",
        ]
        words += ["train.sheet_every=1000000", "--device", "cpu", "--quiet"]
        return ["train", "edm-digits", *self.small[2:8], *words, "--out", str(self.place / "told")]

    def try_mask(self, r: random.Random) -> list[str]:
        picture, mask = self._copy("picture.png"), self._copy("mask.png")
        file = r.choice([picture, mask])
        if r.random() < 0.3:
            file.write_bytes(r.choice([png(r, 8 * SCALE), huge_png(30_000, 30_000), b"", r.choice(TEXTS)]))
        else:
            self._changed(file, r)
        fit = ["--fit"] * (r.random() < 0.3)
        if r.random() < 0.4:
            words = ["edit", str(self.run), str(picture), "--mask", str(mask), "--n", "1"]
            return [*words, *fit, "--out", str(self.place / "e.png"), "--device", "cpu"]
        asked = r.choice([f"mask={mask}", f"mask={r.choice(VALUES)!s:.200}", "mask=1,1,2,2", "mask=random 30%"])
        words = ["restore", str(self.run), str(picture), "task=inpaint", asked.replace("\0", "x"), "--samples", "2"]
        return [*words, *fit, "--out", str(self.place / "restored"), "--device", "cpu"]

    def try_request(self, r: random.Random) -> list[str]:
        """A request of the playground with a part of it changed; `answer_to` sends it."""
        method, path, body = request(r, base64.b64encode((self.seeds / "picture.png").read_bytes()).decode())
        kind = r.random()
        if kind < 0.7:
            text = json.dumps(changed_tree(json.loads(body), r))
            body = text.encode("utf-8", "surrogatepass")
        elif kind < 0.85:
            body = changed_bytes(body, r)
        elif kind < 0.95:
            made = sorted((self.seeds / "made").glob("*.png"))[0].read_bytes()
            method, path, body = "POST", "/settings", changed_bytes(made, r) if r.random() < 0.8 else r.choice(TEXTS)
        else:
            queries = ["run=0&number=99999", "number=-1", "run=1&run=0", "number=" + "9" * 5000, "x=%ff", "number=1e3"]
            method, path, body = "GET", f"/picture?{r.choice(queries)}", b""
        self.asked = (method, path, body)
        return ["POST", path, body.decode("utf-8", "replace")]

    def answer_to(self, words: list[str]) -> int:
        """Give a command its words; give a request to the playground and take its answer for an exit code."""
        if words[0] != "POST":
            return self.main(words)
        status, said = asyncio.run(call(self.app, *self.asked))
        print(said[-2000:])
        events = [json.loads(line) for line in said.splitlines()] if status == 200 and "event" in said[:20] else []
        told = [event["message"] for event in events if event["event"] == "error"]
        wrong = status >= 500 or any("could not be made" in message for message in told)
        if status != 200 and not wrong:
            print("error: " + json.loads(said)["message"])
        return 1 if wrong else 0 if status == 200 else 2


async def call(app: Any, method: str, path: str, body: bytes) -> tuple[int, str]:
    """Call the playground as a server does; return the status and the text of its answer."""
    path, _, query = path.partition("?")
    sent: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    got: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await asyncio.sleep(3600)  # the client stays
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        got.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"127.0.0.1:80")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    status = next(message["status"] for message in got if message["type"] == "http.response.start")
    text = b"".join(message.get("body", b"") for message in got if message["type"] == "http.response.body")
    return status, text.decode("utf-8", "replace")
