"""The playground makes what `sfumato sample` makes, and no request can take it down (P20)."""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.app.conftest import LIMITS, Served

from sfumato.app import _patience, _walks
from sfumato.app._controls import controls, described
from sfumato.app._models import Model
from sfumato.app._request import Limits
from sfumato.cli import main
from sfumato.core.find import entries
from sfumato.report.signature import digest, read
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.training.loop import train


def done(events: list[dict[str, Any]], way: int = 0) -> dict[str, Any]:
    assert events[-1] == {"event": "end"}, events[-1]
    return next(event for event in events if event["event"] == "done" and event["way"] == way)


def picture(png: str) -> tuple[Image.Image, dict[str, Any]]:
    return read(io.BytesIO(base64.b64decode(png)), "it")


def pixels(png: str) -> torch.Tensor:
    image = picture(png)[0]
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, -1)


# it makes images


def test_images_are_those_of_the_library(served: Served, models: list[Model]) -> None:
    ways = [{"sampler": "ddim", "grid": "karras", "grid_options": {"steps": 4}, "guidance": 2}]
    status, events = served.images(seed=3, count=5, label=7, ways=ways)
    made = done(events)
    assert status == 200 and made["bad"] == 0 and made["nfe"] == 8  # 4 steps, guided: two networks a step
    request = json.dumps({"seed": 3, "count": 5, "label": 7, "ways": ways}).encode()
    way = _walks.Panel(models[0], None, _request(request, models).ways[0].sample)
    run = models[0].run.with_recipe(models[0].recipe(way.sample))
    own = run.source()(range(3, 8), torch.full((5,), 7))
    for i, entry in enumerate(made["images"]):
        assert (entry["seed"], entry["label"]) == (3 + i, 7)
        assert torch.equal(pixels(entry["png"]).permute(2, 0, 1), own[i])


def _request(body: bytes, models: list[Model]) -> Any:
    from sfumato.app._request import read_request

    return read_request(body, models[:1], LIMITS)


def test_every_step_is_shown_and_the_last_one_is_the_sample(served: Served) -> None:
    _, events = served.images(count=3, ways=[{"grid_options": {"steps": 7}}])
    frames = [event for event in events if event["event"] == "frame"]
    assert [(frame["step"], frame["steps"]) for frame in frames] == [(i, 7) for i in range(1, 8)]
    levels = [frame["nsr"] for frame in frames]
    assert levels == sorted(levels, reverse=True) and levels[-1] == 0
    last = Image.open(io.BytesIO(base64.b64decode(frames[-1]["x"])))
    assert frames[-1]["x"] == frames[-1]["x0"] and frames[0]["x"] != frames[0]["x0"]
    first = picture(done(events)["images"][0]["png"])[0]
    assert last.crop((0, 0, *first.size)).tobytes() == first.tobytes()


def test_long_walks_show_at_most_forty_steps(served: Served) -> None:
    _, events = served.images(count=1, ways=[{"sampler": "euler", "grid_options": {"steps": 97}}])
    steps = [event["step"] for event in events if event["event"] == "frame"]
    assert len(steps) == _walks.FRAMES and steps[-1] == 97


def test_two_ways_share_seeds_and_classes_and_emerge_together(served: Served) -> None:
    ways = [{"sampler": "euler", "grid_options": {"steps": 6}}, {"sampler": "heun", "grid_options": {"steps": 12}}]
    _, events = served.images(count=4, ways=ways)
    first, second = done(events, 0), done(events, 1)
    for a, b in zip(first["images"], second["images"]):
        assert (a["seed"], a["label"]) == (b["seed"], b["label"]) and a["png"] != b["png"]
    assert (first["nfe"], second["nfe"]) == (6, 23)
    order = [event["way"] for event in events if event["event"] == "frame"]
    halfway = order[: len(order) // 2]
    assert halfway.count(0) == 3 and halfway.count(1) == 6


def test_interpolation_ends_at_the_two_seeds(served: Served) -> None:
    ways = [{"sampler": "ddim"}]
    mixed = done(served.images(seed=4, to=9, count=5, label=2, ways=ways)[1])["images"]
    for i, seed in ((0, 4), (-1, 9)):
        alone = done(served.images(seed=seed, count=1, label=2, ways=ways)[1])["images"][0]
        difference = pixels(alone["png"]).int() - pixels(mixed[i]["png"]).int()
        assert int(difference.abs().max()) <= 1  # another batch rounds otherwise
    assert [entry["mix"] for entry in mixed] == [0, 0.25, 0.5, 0.75, 1]
    assert mixed[2]["png"] not in (mixed[0]["png"], mixed[-1]["png"])


@pytest.mark.parametrize("fields", [{"seed": 5, "count": 4}, {"seed": 5, "to": 8, "count": 3}, {"seed": 2, "count": 1}])
def test_a_downloaded_picture_is_made_again_by_the_command_line(
    fields: dict[str, Any], served: Served, runs: tuple[Path, Path], tmp_path: Path, capfd
) -> None:
    ways = [{"sampler": "heun", "sampler_options": {"churn": 20}, "use": "raw", "guidance": 1.5}]
    made = done(served.images(**fields, ways=ways)[1])
    (tmp_path / "sheet.png").write_bytes(base64.b64decode(made["sheet"]))
    words = ["sample", str(runs[0]), "--like", str(tmp_path / "sheet.png"), "--out", str(tmp_path / "b.png")]
    assert main([*words, "--device", "cpu"]) == 0
    assert "the same, pixel for pixel" in capfd.readouterr().out
    (tmp_path / "one.png").write_bytes(base64.b64decode(made["images"][-1]["png"]))
    words = ["sample", str(runs[0]), "--like", str(tmp_path / "one.png"), "--out", str(tmp_path / "c.png")]
    assert main([*words, "--device", "cpu"]) == 0
    said = capfd.readouterr().out
    assert "the same" in said or "at most 1 of 255" in said


@pytest.mark.parametrize(
    ("fields", "way"),
    [
        ({"seed": 10, "count": 5}, {"sampler": "ddim", "sampler_options": {"eta": 0.5}}),
        ({"seed": 1, "count": 2, "label": 3}, {"guidance": 2.5, "grid": "logsnr", "grid_options": {"steps": 5}}),
        ({"seed": 0, "count": 3, "label": "none"}, {"use": "raw"}),
        ({"seed": 7, "count": 1, "label": 2}, {}),
    ],
)
def test_the_command_shown_makes_the_same_images(
    fields: dict[str, Any], way: dict[str, Any], served: Served, tmp_path: Path
) -> None:
    made = done(served.images(**fields, ways=[way])[1])
    words = shlex.split(made["command"])[1:]
    assert main([*words, "--images", str(tmp_path / "made"), "--device", "cpu"]) == 0
    for entry in made["images"]:
        image, carried = read(tmp_path / "made" / f"seed-{entry['seed']:09d}.png")
        assert carried["label"] == entry["label"] and image.tobytes() == picture(entry["png"])[0].tobytes()


@pytest.mark.parametrize(
    ("way", "says"), [({"guidance": 1}, ["guidance=1"]), ({"guidance": 3}, ["guidance=3"]), ({}, [])]
)
def test_a_run_that_guides_in_an_interval_may_be_asked_not_to(
    way: dict[str, Any], says: list[str], tiny: Recipe, tmp_path: Path
) -> None:
    fields = ["objective.label_dropout=0.1", "train.images=64", "sample.guidance=2", "sample.interval=0.2,20"]
    train(override(tiny, fields), tmp_path / "run", quiet=True)
    one = Served([Model(tmp_path / "run", "cpu")])
    try:
        made = done(one.images(seed=0, count=2, ways=[way])[1])
    finally:
        one.close()
    words = shlex.split(made["command"])[1:]
    assert [word for word in words if "guidance" in word or "interval" in word] == says
    assert main([*words, "--images", str(tmp_path / "made"), "--device", "cpu"]) == 0
    for entry in made["images"]:
        image, _ = read(tmp_path / "made" / f"seed-{entry['seed']:09d}.png")
        assert image.tobytes() == picture(entry["png"])[0].tobytes()


def test_a_picture_gives_its_settings_back(served: Served) -> None:
    made = done(served.images(seed=6, ways=[{"sampler": "euler", "guidance": 3}])[1])
    status, back, _ = served.call("POST", "/settings", base64.b64decode(made["images"][1]["png"]))
    assert status == 200 and (back["seed"], back["run"]) == (7, 0)
    assert (back["sample"]["sampler"]["name"], back["sample"]["guidance"]) == ("euler", 3)
    other = base64.b64decode(next(event["x"] for event in served.images()[1] if event["event"] == "frame"))
    for content, words in ((other, "does not say how it was made"), (b"text", "is not a PNG"), (b"", "is not a PNG")):
        status, back, _ = served.call("POST", "/settings", content)
        assert status == 422 and words in back["message"]


def test_images_with_nan_are_left_out_and_counted(models: list[Model], monkeypatch) -> None:
    network = models[0].denoiser(None)

    class Broken:
        def __call__(self, x, level, label=None):
            made = network(x, level, label)
            made.x0[1] = torch.nan
            return made

    monkeypatch.setattr(models[0], "denoiser", lambda use: Broken())
    request = _request(b'{"count": 3, "ways": [{"sampler": "ddim"}]}', models)
    made = [event for event in _walks.walk(request, lambda: None) if event["event"] == "done"][0]
    assert made["bad"] == 1 and made["images"][1] is None and made["sheet"] is None
    assert made["images"][0] and made["images"][2]


# what is refused, with a message


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"count": 10**6}, "count is a whole number from 1 to 16; got 1000000"),
    ({"count": 0}, "from 1 to 16; got 0"),
    ({"count": 2.5}, "count is a whole number; got 2.5"),
    ({"count": "all"}, "count is a whole number; got 'all'"),
    ({"count": True}, "count is a whole number; got True"),
    ({"seed": -1}, "seed is a whole number from 0"),
    ({"seed": 2**60}, "seed is a whole number from 0"),
    ({"seed": 10**30}, "seed is a whole number from 0"),
    ({"to": 5, "count": 1}, "from 2 to 16; got 1"),
    ({"size": 16384}, "Unknown field 'size'"),
    ({"label": 99}, "Labels lie in [0, 10)"),
    ({"label": 10**30}, "a class or its number"),
    ({"label": "zebra"}, "Unknown class 'zebra'"),
    ({"label": [1]}, "a class or its number; got [1]"),
    ({"ways": []}, "one or two ways"),
    ({"ways": [{}] * 3}, "one or two ways"),
    ({"ways": ["heun"]}, "A way is a JSON object; got 'heun'"),
    ({"ways": [{"run": 1}]}, "run is a whole number from 0 to 0; got 1"),
    ({"ways": [{"use": "power-9"}]}, "Unknown average 'power-9'"),
    ({"ways": [{"classifier": "/etc"}]}, "Unknown field 'classifier'"),
    ({"ways": [{"sampler": "huen"}]}, "Did you mean 'heun'?"),
    ({"ways": [{"sampler": "../../etc"}]}, "Unknown sampler"),
    ({"ways": [{"sampler": 3}]}, "sampler is a name; got 3"),
    ({"ways": [{"sampler": "heun", "sampler_options": {"denoiser": 1}}]}, "has no option 'denoiser'"),
    ({"ways": [{"sampler": "heun", "sampler_options": {"churn": "x"}}]}, "heun: churn is a number"),
    ({"ways": [{"sampler": "heun", "sampler_options": {"churn": 1e300}}]}, "heun: churn is a number"),
    ({"ways": [{"sampler": "heun", "sampler_options": {"gauge": "sideways"}}]}, "gauge is one of ve, flow, vp"),
    ({"ways": [{"sampler": "heun", "sampler_options": {"churn": -1}}]}, "sampler.churn must be at least 0; got -1"),
    ({"ways": [{"sampler": "ddim", "sampler_options": {"clip": -1}}]}, "sampler.clip must be at least 0; got -1"),
    ({"ways": [{"sampler": "heun", "sampler_options": 7}]}, "sampler_options is a JSON object"),
    ({"ways": [{"grid": "full"}]}, "needs 'table'"),
    ({"ways": [{"grid_options": {"steps": 10**9}}]}, "steps is a whole number from 0 to 100; got 1000000000"),
    ({"ways": [{"grid_options": {"steps": -3}}]}, "steps is a whole number from 0 to 100"),
    ({"ways": [{"guidance": 1e9}]}, "guidance is a number from -100 to 100"),
    ({"ways": [{"guidance": "strong"}]}, "guidance is a number from -100 to 100; got 'strong'"),
    ({"ways": [{"guidance": None}]}, "guidance is a number"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_not_allowed_is_refused_in_words(fields: dict[str, Any], words: str, served: Served) -> None:
    status, message = served.images(**fields)
    assert status == 422 and words in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"ways": [{"guidance": NaN}]}', "a number that is not finite (NaN)"),
        (b'{"ways": [{"guidance": -Infinity}]}', "a number that is not finite (-Infinity)"),
        (b'{"ways": [{"guidance": 1e999}]}', "a number that is not finite (1e999)"),
        (b'{"seed": 1e999, "ways": [{}]}', "a number that is not finite (1e999)"),
        (b"", "A request is not JSON that can be read"),
        (b"\xff\xfe", "A request is not text in UTF-8"),
        (b"[" * 60_000, "A request is nested too deeply"),
        (b"null", "A request is a JSON object; got None"),
        (b'{"seed": ' + b"9" * 6000 + b"}", "a number of 6,000 digits"),
    ],
)
def test_bodies_that_are_no_request_are_refused(body: bytes, words: str, served: Served) -> None:
    status, answer, _ = served.call("POST", "/images", body)
    assert status == 422 and words in answer["message"]


def test_what_does_not_fit_the_model_is_said_in_the_stream(served: Served) -> None:
    _, events = served.images(ways=[{"sampler": "ancestral", "sampler_options": {"variance": "learned"}}])
    assert events[-1] == {"event": "end"}
    assert "reads a learned variance" in events[-2]["message"]


def test_a_huge_upload_is_refused_and_a_bomb_is_not_unpacked(served: Served) -> None:
    for path in ("/images", "/settings"):
        try:
            status, answer, _ = served.call("POST", path, b"x" * 5_000_000)
            assert status == 413 and "bytes are taken here" in answer["message"]
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server stops reading before the client has stopped writing
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    status, answer, _ = served.call("POST", "/settings", bomb.getvalue())
    assert status == 422 and "claims 12000 x 12000 pixels" in answer["message"]
    assert served.images()[0] == 200


def test_other_sites_and_names_are_refused(served: Served) -> None:
    body = b'{"ways": [{}]}'
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        status, answer, _ = served.call("POST", "/images", body, **headers)
        assert status == 403 and "answer" in answer["message"]
    own = f"127.0.0.1:{served.port}"
    assert served.call("POST", "/images", body, Host=own, Origin=f"http://{own}")[0] == 200
    assert served.call("GET", "/", None, Host=f"localhost:{served.port}")[0] == 200


def test_the_page_may_load_from_here_only_and_names_nobody_else(served: Served) -> None:
    for path in ("/", "/page.css", "/page.js", "/picture.js", "/told.js"):
        status, content, headers = served.call("GET", path)
        assert status == 200 and headers["content-security-policy"].startswith("default-src 'none'")
        assert b"http://" not in content and b"https://" not in content and b"@import" not in content
    assert served.call("GET", "/nowhere")[0] == 404 and served.call("GET", "/images")[0] == 405


# load


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_requests_at_once_are_served_or_turned_away_and_the_process_stays_up(count: int, served: Served) -> None:
    answers: list[tuple[int, Any]] = []

    def ask() -> None:
        answers.append(served.images(ways=[{"sampler": "ddim", "grid_options": {"steps": 20}}]))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [status for status, _ in answers]
    assert len(codes) == count and set(codes) == {200, 429}
    assert all("as many as this playground lets wait" in answer for status, answer in answers if status == 429)
    assert all(done(answer)["bad"] == 0 for status, answer in answers if status == 200)
    assert served.images()[0] == 200


def test_a_request_that_takes_too_long_is_stopped_and_the_next_one_is_served(models: list[Model]) -> None:
    one = Served(models[:1], Limits(images=16, steps=1000, seconds=1))
    try:
        began = time.monotonic()
        status, events = one.images(count=16, ways=[{"sampler": "heun", "grid_options": {"steps": 1000}}] * 2)
        assert status == 200 and "Stopped after 1 s of computing" in events[-2]["message"]
        assert time.monotonic() - began < 30
        assert done(one.images(count=1)[1])["bad"] == 0
    finally:
        one.close()


def test_work_for_a_client_that_left_is_dropped(models: list[Model], monkeypatch) -> None:
    network, calls = models[0].denoiser(None), []

    def slow(x, level, label=None):
        calls.append(1)
        time.sleep(0.05)
        return network(x, level, label)

    monkeypatch.setattr(models[0], "denoiser", lambda use: slow)
    one = Served(models[:1], Limits(seconds=60))
    try:
        from http.client import HTTPConnection

        connection = HTTPConnection("127.0.0.1", one.port)
        connection.request("POST", "/images", b'{"ways": [{"sampler": "ddim", "grid_options": {"steps": 900}}]}')
        connection.getresponse().read(100)
        connection.sock.close() if connection.sock else None
        connection.close()
        assert done(one.images(count=1)[1])["bad"] == 0  # not after 900 steps of 0.05 s
        assert len(calls) < 400
    finally:
        one.close()


def test_an_error_of_ours_costs_one_request(models: list[Model], monkeypatch, capfd) -> None:
    monkeypatch.setattr(models[0], "denoiser", lambda use: 1 / 0)
    one = Served(models[:1])
    try:
        _, events = one.images()
        assert "could not be made (ZeroDivisionError" in events[-2]["message"]
        monkeypatch.undo()
        assert done(one.images()[1])["bad"] == 0
    finally:
        one.close()
    assert "ZeroDivisionError" in capfd.readouterr().err


# controls


@pytest.mark.parametrize("axis", ["sampler", "grid"])
def test_every_option_of_every_entry_has_a_control_with_words(axis: str) -> None:
    for entry in described(axis):
        for control in entry["controls"]:
            assert control["about"], (entry["name"], control["name"])
        json.dumps(entry, allow_nan=False)
    assert [entry["name"] for entry in described(axis)] == list(entries(axis))


def test_kinds_follow_the_signature() -> None:
    found = controls(entries("sampler")["heun"], ("denoiser", "x", "grid", "noise", "label"))
    kinds = {name: (control.kind, control.default) for name, control in found.items()}
    assert kinds["gauge"] == ("choice", "ve") and kinds["churn"] == ("number", 0.0)
    assert kinds["s_max"] == ("number", None) and found["s_max"].optional


def test_models_of_other_classes_are_compared_each_with_its_own_or_without_a_class(models: list[Model]) -> None:
    one = Served(models)
    try:
        status, events = one.images(ways=[{"run": 0}, {"run": 1}])  # what the page asks for by default
        assert status == 200 and [image["label"] for image in done(events, 0)["images"]] == [0, 1]
        assert [image["label"] for image in done(events, 1)["images"]] == [None, None]
        status, message = one.images(label=3, ways=[{"run": 0}, {"run": 1}])
        assert status == 422 and "different classes" in message
        _, events = one.images(label="none", ways=[{"run": 0}, {"run": 1}])
        assert done(events, 1)["images"][0]["label"] is None
        _, events = one.images(label="none", ways=[{"run": 1, "guidance": 2}])
        assert "Guidance needs a class-conditional model" in events[-2]["message"]
    finally:
        one.close()


# half a request, and requests that are none


def said_to(port: int, content: bytes, wait: float = 30) -> bytes:
    """Send bytes and nothing more, and return all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(content)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


HALVES = {
    "nothing": b"",
    "half a head": b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-",
    "half a body": b"POST /images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
    "half an upload": b"POST /settings HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "half a second request": b"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /abo",
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_request_is_given_up_after_a_while(name: str, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_patience, "SECONDS", 0.5)
    began = time.monotonic()
    answer = said_to(served.port, HALVES[name])
    assert 0.4 < time.monotonic() - began < 10
    assert b" 408 " in answer if HALVES[name] else answer == b""
    assert served.call("GET", "/about")[0] == 200


def test_a_request_that_comes_slowly_but_in_time_is_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_patience, "SECONDS", 5.0)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        for part in (b"GET /about HT", b"TP/1.1\r\nHost: 127.0.0.1\r\n", b"Connection: close\r\n\r\n"):
            connection.sendall(part)
            time.sleep(0.1)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["[", "[::1", "\xff", "", "127.0.0.1@evil.example", "a" * 5000])
def test_a_host_that_is_none_is_refused_in_one_sentence(host: str, served: Served) -> None:
    head = b"GET / HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\nConnection: close\r\n\r\n"
    answer = said_to(served.port, head)
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")) and b"Traceback" not in answer
    headers = {"Origin": "http://[", "Host": f"127.0.0.1:{served.port}"}
    assert served.call("GET", "/", None, **headers)[0] == 403


NUMBER = b"1" * 4000
BODIES = {
    "a number of 4,000 digits": b'{"seed": ' + NUMBER + b', "ways": [{}]}',
    "an option of 4,000 digits": b'{"ways": [{"grid_options": {"steps": ' + NUMBER + b"}}]}",
    "an option beyond floats": b'{"ways": [{"grid_options": {"steps": 1e999}}]}',
    "nested": b'{"ways": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested a little": b'{"ways": ' + b"[" * 300 + b"]" * 300 + b"}",
    "half of a character": b'{"label": "\\ud800", "ways": [{}]}',
    "not UTF-8": b'{"label": "\xff"}',
    "a form": b"seed=1&ways=2",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused_in_one_sentence(name: str, served: Served) -> None:
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", "\x01"):
        status, said, _ = served.call("POST", "/images", BODIES[name], **{"Content-Type": kind.strip("\x01")})
        assert 400 <= status < 500 and 0 < len(said["message"]) < 500, (status, said)


TEXTS = {
    "nested": '{"pixels": "", "settings": "' + "[" * 3000 + '"}',
    "nested itself": "[" * 100_000,
    "no text": '{"pixels": "", "settings": {"a": 1}}',
    "a long number": '{"pixels": ' + "9" * 5000 + "}",
    "a list": "[1]",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_picture_whose_text_means_nothing_is_refused_in_one_sentence(name: str, served: Served) -> None:
    image, text = Image.new("L", (8, 8)), TEXTS[name]
    if '"pixels": ""' in text:
        text = text.replace('"pixels": ""', f'"pixels": "{digest(image)}"')
    info, out = PngInfo(), io.BytesIO()
    info.add_text("sfumato", text, zip=True)
    image.save(out, "PNG", pnginfo=info)
    status, said, _ = served.call("POST", "/settings", out.getvalue())
    assert 400 <= status < 500 and 0 < len(said["message"]) < 500, (status, said)


def test_a_head_that_is_too_long_is_refused(served: Served) -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(70))
    assert said_to(served.port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lines).startswith(b"HTTP/1.1 400")
