"""The command line that both frameworks share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import typer

from ..errors import ConfigError, DataError, DivergedError, RankError
from ..run.background import import_large
from ..run.config import TrainConfig
from ..serving.export import ExportedModel, LoadExported
from .compare_command import add_compare
from .doctor_command import add_doctor
from .export_command import add_export
from .forget_command import add_forget
from .serve_command import add_serve
from .serving_commands import add_serving
from .train_command import add_train


def framework_app(framework: str, package: str | None) -> typer.Typer:
    """The command line of ``framework``, whose ``package`` has ``train.train``, ``serve.load_served`` and ``doctor``;
    they are imported when a command needs them, because --help need not wait for a framework."""

    def train(config: TrainConfig) -> object:
        return import_large(f"{package}.train").train(config)

    def load(weights: Path, device: str, precision: str) -> ExportedModel:
        return import_large(f"{package}.serve").load_served(weights, device, precision)

    def doctor() -> ModuleType:
        return import_large(f"{package}.doctor")

    app = build_app(framework, train, load)
    add_doctor(app, framework, doctor)
    return app


def build_app(framework: str, train: Callable[[TrainConfig], object], load: LoadExported) -> typer.Typer:
    """Command line with the subcommands ``train``, which calls ``train`` with the resolved `TrainConfig`, ``compare``,
    ``forget``, and ``evaluate``, ``recommend``, ``export`` and ``serve``, which use a run's weights with the model that
    ``load`` makes of them. Errors end the program as `guarded` says."""
    app = typer.Typer(
        name=f"cce-minus-{framework}",
        help=f"Train and serve sequential recommenders on large catalogs with {framework}.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )

    add_train(app, framework, train, guarded)
    add_compare(app, framework, guarded)
    add_serving(app, framework, load, guarded)
    add_export(app, framework, load, guarded)
    add_serve(app, framework, load, guarded)
    add_forget(app, framework, guarded)
    return app


def guarded(work: Callable[[], object]) -> None:
    """Does a command's work with its log on the terminal. `DataError` and `ConfigError` end the program with a message
    of one line and status 2, `DivergedError` and `RankError` with status 1: the command was right, its training failed.
    Other errors are faults of the program and keep their traceback."""
    # force: an import may have configured the root logger already (Orbax's does), with another format.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("cce_minus").setLevel(logging.INFO)
    try:
        work()
    except (DataError, ConfigError, DivergedError, RankError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(1 if isinstance(error, DivergedError | RankError) else 2) from error
