"""``sfumato app``: the playground in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Name, device_named, refusal

if TYPE_CHECKING:
    from sfumato.app._models import Model


def app(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    other: Annotated[Positional[str | None], arg(metavar="[RUN2]", help_behavior_hint="")] = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8642,
    open: bool = False,
    max_images: int = 64,
    max_steps: int = 1000,
    max_seconds: float = 120.0,
    max_waiting: int = 16,
    device: Name = None,
) -> int:
    """Open a playground on a run: sample it in the browser and watch images emerge.

    Class, seed, sampler, grid, guidance; two samplers, weights or runs side by side on the same seeds; the way between
    two seeds. Every picture says how it was made: sfumato sample RUN --like PICTURE.png makes it again.

    Nothing is loaded from the network and nothing is reported. Only this machine can reach the page unless --host says
    otherwise. Needs: pip install 'sfumato[app]'

    Arguments:
        run: Directory of a run.
        other: Directory of a second run, to compare.
        host: Address to listen on; 0.0.0.0 lets other machines in.
        port: Port to listen on; 0 for any that is free.
        open: Also open the page in the browser.
        max_images: The most images in one request.
        max_steps: The most steps of a sampler.
        max_seconds: The most computing for one request, in seconds.
        max_waiting: The most requests that wait.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    print(f"sfumato app {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import OptionError
    from sfumato.core.optional import optional

    for package in ("starlette", "uvicorn"):
        optional(package, "app", "The playground", OptionError)
    from sfumato.app import _server
    from sfumato.app._request import Limits

    limits = Limits(images=max_images, steps=max_steps, seconds=max_seconds, waiting=max_waiting)
    for name in ("images", "steps", "seconds", "waiting"):
        if not getattr(limits, name) >= 1:  # NaN too
            raise refusal(f"--max-{name} is at least 1; got {getattr(limits, name):g}.")
    where = device_named(device)
    models = _shown([run] if other is None else [run, other], where)
    bound = _server.listen(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{bound.getsockname()[1]}/"
    if host not in _server.LOOPBACK:
        print(f"  warning: anyone who can reach this machine can use the page; --host 127.0.0.1 keeps it to {name}")
    print(f"  {url}   (Ctrl-C ends it)", flush=True)
    if open:
        import webbrowser

        webbrowser.open(url)
    _server.serve(_server.playground(models, limits, host), bound)
    return 0


def _shown(paths: list[str], device: str) -> list[Model]:
    """Return the runs that the playground can show; one that it cannot, a GAN say, is left out if another is left.

    Raises:
        RecipeError: If it can show none.
    """
    from sfumato.app._models import Model
    from sfumato.runs.recipe import RecipeError

    models, refused = [], []
    for path in paths:
        try:
            models.append(Model(path, device))
        except RecipeError as error:
            refused.append(error)
    if not models:
        raise refused[0]
    for reason in refused:
        print(f"  note: {reason} The other run is shown alone.")
    return models
