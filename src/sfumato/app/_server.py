"""The playground over HTTP.

    GET  /            the page; /page.css, /page.js, /picture.js, /told.js
    GET  /about       what can be sampled, and the limits
    POST /images      a request (`_request`); the answer is a stream of events, one JSON value a line
    POST /changes     the same with a picture: that is restored or edited, or that a model is told
    GET  /picture     ?run=0&number=3: an image of the test split, as PNG; with &what=told what a model is told of it
    POST /settings    a picture made here or by `sfumato sample --images`; the answer is how it was made

Other sites cannot use it through a visitor's browser: their `Origin` is refused, and on the loopback address so is a
`Host` that is not the loopback's (which stops a name that is pointed at 127.0.0.1). The page may load from here only.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Call
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sfumato.app import _patience
from sfumato.app._controls import described
from sfumato.app._fields import RequestError, fields, short, whole
from sfumato.app._line import FullError, Job, Line
from sfumato.app._models import Model
from sfumato.app._request import Limits, read_request
from sfumato.core.reading import parse_json
from sfumato.report.signature import SignatureError, picture_of, read

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST = 2000  # characters of a message
HEARTBEAT = 2.0  # seconds between signs of life to a client that waits
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/told.js": ("told.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class TooLargeError(ValueError):
    """A body above its limit."""


class LateError(ValueError):
    """A body that did not come in time."""


CODES: dict[type[Exception], int] = {FullError: 429, TooLargeError: 413, LateError: 408}  # anything else is 422


def playground(models: Sequence[Model], limits: Limits, host: str) -> ASGIApp:
    """Return the playground as an ASGI application.

    Arguments:
        models: The runs that can be sampled.
        limits: What a request may ask for.
        host: The address it listens on.
    """
    line = Line(limits)
    about = {
        "runs": [model.described() for model in models],
        "samplers": described("sampler"),
        "grids": described("grid"),
        "tasks": described("task"),
        "methods": described("method"),
        "limits": {"images": limits.images, "steps": limits.steps, "seconds": limits.seconds},
    }

    async def facts(call: Call) -> Response:
        return JSONResponse(about)

    async def images(call: Call, most: int = limits.body) -> Response:
        body = await _body(call, most)
        request = await run_in_threadpool(read_request, body, models, limits)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def tell(event: dict[str, Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = line.join(request, tell)
        return StreamingResponse(_stream(call, job, events), media_type="application/x-ndjson")

    async def changes(call: Call) -> Response:
        return await images(call, limits.upload)

    async def picture(call: Call) -> Response:
        return await run_in_threadpool(_held, call.query_params, models)

    async def settings(call: Call) -> Response:
        body = await _body(call, limits.upload)
        _, made = await run_in_threadpool(read, io.BytesIO(body), "The picture")
        return JSONResponse(_understood(made, models))

    routes = [Route(path, _file(name, kind)) for path, (name, kind) in FILES.items()]
    routes += [Route("/about", facts), Route("/images", images, methods=["POST"])]
    routes += [Route("/changes", changes, methods=["POST"]), Route("/picture", picture)]
    routes += [Route("/settings", settings, methods=["POST"])]
    app = Starlette(
        routes=routes, exception_handlers={ValueError: _refused, OSError: _refused, ClientDisconnect: _gone}
    )
    return _guarded(app, host)


def _file(name: str, kind: str) -> Callable[[Call], Awaitable[Response]]:
    content = files("sfumato.app").joinpath(name).read_bytes()

    async def answer(call: Call) -> Response:
        return Response(content, media_type=kind)

    return answer


def _held(query: Mapping[str, str], models: Sequence[Model]) -> Response:
    """Return an image of a test split."""
    asked = {name: int(text) if re.fullmatch(r"\d{1,9}", text) else text for name, text in query.items()}
    asked = dict(fields(asked, "A question for a picture", ("run", "number", "what")))
    data = models[whole(asked, "run", 0, len(models) - 1, 0)].held
    number = whole(asked, "number", 0, len(data) - 1, 0)
    if asked.get("what", "image") not in ("image", "told") or (asked.get("what") == "told" and data.beside is None):
        raise RequestError(f"what is image, or told where a model is told an image; got {short(asked['what'])}.")
    images = data.beside if asked.get("what") == "told" and data.beside is not None else data.images
    out = io.BytesIO()
    picture_of(images[number]).save(out, format="PNG")
    return Response(out.getvalue(), media_type="image/png")


async def _body(call: Call, most: int) -> bytes:
    """Return the body of a call, or refuse it as soon as it is too large or late."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(_patience.SECONDS):
            async for chunk in call.stream():
                size += len(chunk)
                if size > most:
                    raise TooLargeError(f"At most {most:,} bytes are taken here. Send less.")
                parts.append(chunk)
    except TimeoutError:
        raise LateError(f"A request is sent within {_patience.SECONDS:g} seconds. Send it again.") from None
    return b"".join(parts)


async def _stream(call: Call, job: Job, events: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        while not await call.is_disconnected():
            try:
                event = await asyncio.wait_for(events.get(), HEARTBEAT)
            except TimeoutError:
                event = {"event": "alive"}
            yield json.dumps(event).encode() + b"\n"
            if event["event"] == "end":
                return
    finally:
        job.leave()


def _understood(made: dict[str, Any], models: Sequence[Model]) -> dict[str, Any]:
    """Return how a picture was made, with the number of the run here that made it."""
    try:
        settings = parse_json(made.pop("settings"), "The text", finite=False)
        checkpoint, recipe = settings["checkpoint"], settings["recipe"]
        for number, model in enumerate(models):
            if model.settings(model.run.recipe.sample, None)["checkpoint"] == checkpoint:
                told = {"where": settings.get("where", {})}
                return {**made, **told, "run": number, "use": settings["use"], "sample": settings["sample"]}
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"The picture's settings cannot be read ({type(error).__name__}: {error}).") from None
    raise SignatureError(
        f"The picture was made by {recipe!s:.80}, checkpoint {checkpoint!s:.80}, which is not "
        "open here. Start the playground with that run."
    )


async def _refused(call: Call, error: Exception) -> Response:
    headers = {"connection": "close"} if isinstance(error, TooLargeError | LateError) else None
    return JSONResponse({"message": str(error)[:LONGEST]}, CODES.get(type(error), 422), headers)


async def _gone(call: Call, error: Exception) -> Response:
    return Response(status_code=400)


def _guarded(app: ASGIApp, host: str) -> ASGIApp:
    """Put the playground behind its door: other sites are refused, and every answer carries the page's rules."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if (reason := _foreign(scope, host)) is not None:
            await JSONResponse({"message": reason}, 403, HEADERS)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                rules = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *rules]}
            await send(message)

        await app(scope, receive, with_headers)

    return answer


def _foreign(scope: Scope, host: str) -> str | None:
    given = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    named = given.get("host", "")
    if host in LOOPBACK and _split(f"//{named}")[0] not in LOOPBACK:
        return f"This playground answers to {', '.join(LOOPBACK)} only; it was called {named[:80]!r}."
    origin = given.get("origin")
    if origin is not None and _split(origin)[1] != named:
        return f"This playground does not answer other sites; the call came from {origin[:80]!r}."
    return None


def _split(url: str) -> tuple[str | None, str | None]:
    """Return (name of the machine, name and port) of an address; (None, None) if it is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.netloc
    except ValueError:
        return None, None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Arguments:
        host: Address to listen on.
        port: In [0, 65535]; 0 for any that is free.

    Raises:
        RequestError: If the address is not this machine's, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise RequestError(f"A port lies in [0, 65535] (0 for any that is free); got {port}.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise RequestError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. Give another --port (0 for any that is "
            "free) or --host."
        ) from None


def server(app: ASGIApp) -> uvicorn.Server:
    """Return the server of a playground, whose every request must come in time.

    Arguments:
        app: What `playground` returned.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=2,
            access_log=False,
            http=_patience.PatientProtocol,
            ws="none",
        )
    )


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Arguments:
        app: The playground of `playground`.
        bound: A listening socket.
    """
    server(app).run(sockets=[bound])
