"""The command line that both frameworks share, made from the fields of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import ConfigError, DataError
from ..run.config import TrainConfig
from ..serving.served_run import Load
from .serving_commands import add_serving


def build_app(framework: str, train: Callable[[TrainConfig], object], load: Load) -> typer.Typer:
    """Command line with the subcommands ``train``, which calls ``train`` with the resolved `TrainConfig`, and
    ``evaluate``, ``recommend`` and ``export``, which serve a run's weights with the model that ``load`` makes of them.

    ``train`` has one option for each field of `TrainConfig`; only the default folder differs, ``runs/<framework>``.
    `DataError` and `ConfigError` end the program with status 2 and a message of one line.
    """
    app = typer.Typer(
        name=f"cce-minus-{framework}",
        help=f"Train and serve sequential recommenders on large catalogs with {framework}.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )

    app.command("train", help=_help(framework))(_command(framework, train))
    add_serving(app, framework, load, _guarded)
    return app


def _guarded(work: Callable[[], object]) -> None:
    # force: an import may have configured the root logger already (Orbax's does), with another format.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("cce_minus").setLevel(logging.INFO)
    try:
        work()
    except (DataError, ConfigError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


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
        _guarded(lambda: train(TrainConfig(**options)))

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
