"""The command line that both frameworks share, made from the fields of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import ConfigError, DataError, DivergedError
from ..run.background import import_large
from ..run.config import TrainConfig
from ..serving.export import ExportedModel, LoadExported
from .export_command import add_export
from .serving_commands import add_serving


def framework_app(framework: str, package: str | None) -> typer.Typer:
    """The command line of ``framework``, whose ``package`` has ``train.train`` and ``serve.load_served``; they are
    imported when a command needs them, because --help need not wait for a framework."""

    def train(config: TrainConfig) -> object:
        return import_large(f"{package}.train").train(config)

    def load(weights: Path, device: str, precision: str) -> ExportedModel:
        return import_large(f"{package}.serve").load_served(weights, device, precision)

    return build_app(framework, train, load)


def build_app(framework: str, train: Callable[[TrainConfig], object], load: LoadExported) -> typer.Typer:
    """Command line with the subcommands ``train``, which calls ``train`` with the resolved `TrainConfig`, and
    ``evaluate``, ``recommend`` and ``export``, which serve a run's weights with the model that ``load`` makes of them.

    ``train`` has one option for each field of `TrainConfig`; only the default folder differs, ``runs/<framework>``.
    Errors end the program as `guarded` says.
    """
    app = typer.Typer(
        name=f"cce-minus-{framework}",
        help=f"Train and serve sequential recommenders on large catalogs with {framework}.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )

    app.command("train", help=_help(framework))(_command(framework, train))
    add_serving(app, framework, load, guarded)
    add_export(app, framework, load, guarded)
    return app


def guarded(work: Callable[[], object]) -> None:
    """Does a command's work with its log on the terminal. `DataError` and `ConfigError` end the program with a message
    of one line and status 2, `DivergedError` with status 1: the command was right, its training failed. Other errors
    are faults of the program and keep their traceback."""
    # force: an import may have configured the root logger already (Orbax's does), with another format.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("cce_minus").setLevel(logging.INFO)
    try:
        work()
    except (DataError, ConfigError, DivergedError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1 if isinstance(error, DivergedError) else 2) from error


def _help(framework: str) -> str:
    return (
        f"Train SASRec, or another --model, with {framework} to predict each user's next item.\n\n"
        "The loss is cross-entropy with sampled negatives (CCE-), over all items with --negatives all, or another "
        "--loss. Validation ranks the full catalog; the weights with the best validation NDCG@10 are kept and tested "
        "at the end.\n\n"
        f"Try it: cce-minus-{framework} train --epochs 3\n\n"
        f"Own data: cce-minus-{framework} train --data events.parquet --user-column customer --item-column "
        "sku --time-column bought_at"
    )


def _command(framework: str, train: Callable[[TrainConfig], object]) -> Callable[..., None]:
    def command(**options: Any) -> None:
        guarded(lambda: train(TrainConfig(**options)))

    defaults = TrainConfig(out=f"runs/{framework}")
    hints = get_type_hints(TrainConfig)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, field.name),
            annotation=Annotated[
                hints[field.name],
                typer.Option(help=field.metadata["help"], rich_help_panel=field.metadata["group"]),
            ],
        )
        for field in dataclasses.fields(TrainConfig)
    ]
    # typer reads a command's options from its signature and annotations.
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
