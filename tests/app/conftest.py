"""A playground on two very small runs, served on a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training import loop

pytest.importorskip("starlette", reason="the playground needs its extra: pip install 'sfumato[app]'")
pytest.importorskip("uvicorn", reason="the playground needs its extra: pip install 'sfumato[app]'")

from sfumato.app._models import Model  # noqa: E402
from sfumato.app._request import Limits  # noqa: E402
from sfumato.app._server import listen, playground, server  # noqa: E402

LIMITS = Limits(images=16, steps=100, seconds=20, waiting=4, upload=200_000)


class Served:
    """A playground in a thread, and calls to it."""

    def __init__(self, models: list[Model], limits: Limits = LIMITS) -> None:
        bound = listen("127.0.0.1", 0)
        self.port = bound.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.server = server(playground(models, limits, "127.0.0.1"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [bound]}, daemon=True)
        self.thread.start()

    def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Return (status, JSON or bytes, headers) of a call."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content, kind = answer.read(), answer.headers.get_content_type()
        connection.close()
        return answer.status, json.loads(content) if kind == "application/json" else content, dict(answer.headers)

    def images(self, **fields: Any) -> tuple[int, Any]:
        """Return (200, events) of a request for images, or (status, message)."""
        body = json.dumps({"count": 2, "ways": [{}], **fields}).encode()
        status, content, _ = self.call("POST", "/images", body)
        if status != 200:
            return status, content["message"]
        return status, [json.loads(line) for line in content.splitlines()]

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="session")
def runs(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A labelled run that may be guided and an unlabelled one."""
    folder = tmp_path_factory.mktemp("playground")
    loop.train(override(tiny, ["objective.label_dropout=0.1"]), folder / "labelled", quiet=True)
    loop.train(override(tiny, ["data.labels=false", "train.images=64"]), folder / "unlabelled", quiet=True)
    return folder / "labelled", folder / "unlabelled"


@pytest.fixture(scope="session")
def models(runs: tuple[Path, Path]) -> list[Model]:
    return [Model(path, "cpu") for path in runs]


@pytest.fixture(scope="session")
def served(models: list[Model]) -> Iterator[Served]:
    """One playground on the labelled run."""
    one = Served(models[:1])
    yield one
    one.close()


@pytest.fixture(scope="session")
def told(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A playground on a run that is told attributes, and on one that is told a smaller image."""
    folder = tmp_path_factory.mktemp("told")
    short = ["train.images=64", "data.flip=false", "objective.vector_dropout=0.1"]
    loop.train(override(tiny, [*short, "data.attributes=ink,slant"]), folder / "attributes", quiet=True)
    loop.train(override(tiny, ["train.images=64", "data.condition=low:2"]), folder / "low", quiet=True)
    one = Served([Model(folder / name, "cpu") for name in ("attributes", "low")])
    yield one
    one.close()
