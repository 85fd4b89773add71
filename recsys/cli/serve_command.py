"""The command serve of both frameworks' command lines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..option_checks import require
from ..server.limits import Limits
from ..serving.served_run import Load, ServedRun
from .serving_options import Data, Device

_REQUEST, _SERVER = "Bounds of a request", "Bounds of the server"
_DEFAULTS = Limits()
_DAY = 86400


def _bound(text: str, panel: str) -> Any:
    return typer.Option(help=text, rich_help_panel=panel)


def add_serve(app: typer.Typer, framework: str, load: Load, guarded: Callable[[Callable[[], object]], None]) -> None:
    """Adds the command to ``app``, with the arguments of `add_serving`."""

    @app.command("serve", help=_HELP.format(framework=framework))
    def serve(
        run: Annotated[
            Path, typer.Argument(help="Folder of a training run, of either framework, or a link to one.")
        ] = Path(f"runs/{framework}"),
        host: Annotated[
            str, typer.Option(help="Address to listen on. Beyond loopback anyone who reaches it is answered.")
        ] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one, which is printed.")] = 8000,
        allow_host: Annotated[
            list[str] | None,
            typer.Option(
                help="A name that requests may call the server by, beside localhost and --host, such as a proxy's; may "
                "be repeated. *: any, which lets pages of strangers ask in a browser on this machine.",
                show_default=False,
            ),
        ] = None,
        device: Device = "auto",
        data: Data = None,
        watch: Annotated[
            float,
            typer.Option(help="Seconds between looks at the folder for a new run; 0: at the signal SIGHUP alone."),
        ] = 1.0,
        max_body: Annotated[int, _bound("Bytes of a request's body.", _REQUEST)] = _DEFAULTS.max_body,
        max_rows: Annotated[int, _bound("Users, sequences or items of a request.", _REQUEST)] = _DEFAULTS.max_rows,
        max_ids: Annotated[int, _bound("Ids in a sequence, or of candidates.", _REQUEST)] = _DEFAULTS.max_ids,
        max_k: Annotated[int, _bound("Items for each row.", _REQUEST)] = _DEFAULTS.max_k,
        max_items: Annotated[int, _bound("Items of an answer, in all its rows.", _REQUEST)] = _DEFAULTS.max_items,
        timeout: Annotated[
            float, _bound("Seconds for a request's body, and as many for its answer.", _REQUEST)
        ] = _DEFAULTS.timeout,
        batch_rows: Annotated[int, _bound("Rows of requests that one call answers.", _SERVER)] = _DEFAULTS.batch_rows,
        batch_ms: Annotated[
            float, _bound("Milliseconds that a request waits for others to share a call.", _SERVER)
        ] = _DEFAULTS.batch_ms,
        max_waiting: Annotated[int, _bound("Requests that wait for their answers.", _SERVER)] = _DEFAULTS.max_waiting,
        max_bodies: Annotated[
            int, _bound("Bytes of all bodies that come or are not checked yet.", _SERVER)
        ] = _DEFAULTS.max_bodies,
        max_connections: Annotated[int, _bound("Connections at once.", _SERVER)] = _DEFAULTS.max_connections,
        keep_alive: Annotated[int, _bound("Seconds that a silent connection is kept.", _SERVER)] = _DEFAULTS.keep_alive,
        max_header: Annotated[int, _bound("Bytes of a request's head.", _SERVER)] = _DEFAULTS.max_header,
    ) -> None:
        def work() -> None:
            limits = Limits(
                max_body=max_body, max_rows=max_rows, max_ids=max_ids, max_k=max_k, max_items=max_items,
                timeout=timeout, batch_rows=batch_rows, batch_ms=batch_ms, max_waiting=max_waiting,
                max_bodies=max_bodies, max_connections=max_connections, keep_alive=keep_alive, max_header=max_header,
            )  # fmt: skip
            require(0 <= watch <= _DAY, "watch", f"a number of seconds from 0 to {_DAY}", watch)
            require(0 <= port < 2**16, "port", "an integer from 0 to 65535", port)
            _require_packages()
            ServedRun.open(run, data)  # before anyone listens
            from ..server.loaded_run import load_run
            from ..server.serve import serve as serve_run

            make = partial(load_run, load=load, framework=framework, data=data, device=device, batch_rows=batch_rows)
            serve_run(run, make, host=host, port=port, allow_hosts=allow_host or (), watch=watch, limits=limits)

        guarded(work)


def _require_packages() -> None:
    """Raises ``ConfigError`` where a package of the server is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve: expected the packages starlette and uvicorn, got no {' and no '.join(missing)}; "
            'pip install "cce-minus[serve]" installs them'
        )


_HELP = """Answer over HTTP with a trained model, and show it on a page.

On this machine, http://127.0.0.1:8000: cce-minus-{framework} serve runs/shop

Of a link that is turned to each day's run: cce-minus-{framework} serve runs/current --port 9000
"""
