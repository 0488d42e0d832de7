"""``asap-export serve``."""

import logging
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from asap_export.cli.interruption import forget_interruption
from asap_export.cli.options import BundlePath, PrecisionOption, ProviderOption
from asap_export.cli.verbosity import is_quiet, note
from asap_export.cuda import compute_capabilities
from asap_export.errors import UserError

__all__ = ["serve_command"]

_MEGABYTE = 1_000_000
_IMAGES, _LIMITS = "Images", "Limits"


def serve_command(
    bundle: BundlePath,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535)] = 8000,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name", metavar="NAME", help="What clients call it.", show_default="its checkpoint's id"
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", metavar="KEY", envvar="ASAP_EXPORT_API_KEY", help="That clients have to send."
        ),
    ] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="On the CPU.", show_default="one per core"),
    ] = None,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", metavar="N", min=1, help="Answers written at a time.", rich_help_panel=_LIMITS
        ),
    ] = 8,
    places: Annotated[
        int | None,
        typer.Option(
            "--places",
            metavar="N",
            min=1,
            help="Tokens that each of them may have in its cache, pruned ones not counted.",
            show_default="the model's positions, if half of the free memory holds them",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            metavar="N",
            min=0,
            help="Requests that may wait; more get status 429.",
            rich_help_panel=_LIMITS,
        ),
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, help="That an answer may take.", rich_help_panel=_LIMITS
        ),
    ] = 600.0,
    drain: Annotated[
        float,
        typer.Option(
            "--drain",
            metavar="SECONDS",
            min=0,
            help="That answers have to end after SIGTERM.",
            rich_help_panel=_LIMITS,
        ),
    ] = 30.0,
    request_size: Annotated[
        float,
        typer.Option(
            "--request-size", metavar="MB", min=0.001, help="Of the largest request.", rich_help_panel=_LIMITS
        ),
    ] = 50.0,
    allow_remote_images: Annotated[
        bool,
        typer.Option(
            "--allow-remote-images",
            metavar=" ",
            help="Fetch images of http and https URLs, from public addresses.",
            rich_help_panel=_IMAGES,
        ),
    ] = False,
    allow_local_images: Annotated[
        Path | None,
        typer.Option(
            "--allow-local-images",
            metavar="FOLDER",
            help="Read file: URLs in this folder.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
) -> None:
    """Answer OpenAI's chat completions over HTTP from a bundle.

    Requests that come together are answered together; each may bring its own budget. Every request is a line of
    JSON on stderr. On a CPU, --provider auto is cpu, which answers several in one run.
    """
    if allow_local_images is not None and not allow_local_images.is_dir():
        raise UserError(
            f"expected a folder for --allow-local-images, found none at {allow_local_images}; make it"
        )
    try:
        import uvicorn

        from asap_export.serving.server import ServerSettings, create_app
    except ImportError as error:
        raise UserError(
            f'expected the Python package {error.name}, found none; pip install "asap-export[serve]"'
        ) from error
    from asap_export.runtime.model import load
    from asap_export.runtime.rows import open_rows
    from asap_export.serving.batcher import Batcher
    from asap_export.serving.images import ImagePolicy

    _check_port(host, port)
    if provider == "auto" and not compute_capabilities():
        provider = "cpu"  # OpenVINO would feed rows one after the other
    model = load(bundle, provider, threads, precision)
    if model.note:
        note(f"note: {model.note}")
    opened = open_rows(model.graphs, rows, places)
    name = model_name or model.bundle.manifest.source.id
    settings = ServerSettings(
        name, api_key, ImagePolicy(allow_remote_images, allow_local_images), timeout, drain,
        int(request_size * _MEGABYTE),
    )  # fmt: skip
    app = create_app(model, Batcher(model, opened, queue), settings)
    logging.disable(logging.NOTSET)  # the other commands have no log
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("asap_export.serving").setLevel(logging.WARNING if is_quiet() else logging.INFO)
    how = f"{opened.places:,} places each, at once" if opened.places else "one after the other"
    note(f"serving {name} at http://{host}:{port}/v1: {rows} rows, {how}, {model.runs_on}; Ctrl-C stops it")
    with suppress(KeyboardInterrupt):  # the signal once more, after all answers have ended
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=int(drain) + 1,
        )
    forget_interruption()


def _check_port(host: str, port: int) -> None:
    """Raise UserError where the server could not listen, before a model is loaded for it."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise UserError(
            f"expected a free port, found none at {host}:{port} ({error.strerror}); change --port or --host"
        ) from error
