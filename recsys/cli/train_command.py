"""The command train of both frameworks' command lines, made from the fields of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..run.config import TrainConfig
from ..run.run_directory import RunDirectory
from ..run.saved_options import beside, given_options

_OF_A_RUN = ("out", "resume")
"""What a repeated run does not take from the file of another: it would be that run."""


def add_train(
    app: typer.Typer,
    framework: str,
    train: Callable[[TrainConfig], object],
    guarded: Callable[[Callable[[], object]], None],
) -> None:
    """Adds the command to ``app``: an option for each field of `TrainConfig`, with its default but for the folder
    ``runs/<framework>``, and ``--config``. ``guarded`` runs the work and turns its typed errors into one line."""
    app.command("train", help=_help(framework))(_command(framework, train, guarded))


def resolved_config(options: Mapping[str, Any], given: Mapping[str, Any], config: Path | None) -> TrainConfig:
    """The options of a run: those ``given``, else those of the file ``config`` but for its folder, or, with ``resume``
    and no such file, of the run in the folder ``out``, else ``options``. Raises ``ConfigError``."""
    if config is not None:
        of_file = {**given_options(config), **{name: options[name] for name in _OF_A_RUN}}
        return TrainConfig(**beside(of_file, given))
    saved = RunDirectory(Path(options["out"]).absolute(), "any").config
    if options["resume"] and saved.is_file():
        return TrainConfig(**{**beside(vars(TrainConfig.read(saved)), given), "out": options["out"]})
    return TrainConfig(**options)


def _command(
    framework: str, train: Callable[[TrainConfig], object], guarded: Callable[[Callable[[], object]], None]
) -> Callable[..., None]:
    def command(context: typer.Context, config: Path | None, **options: Any) -> None:
        given = {name: value for name, value in options.items() if _is_given(context, name)}
        guarded(lambda: train(resolved_config(options, given, config)))

    defaults = TrainConfig(out=f"runs/{framework}")
    hints = get_type_hints(TrainConfig)
    of_file = typer.Option(
        help="File of options, the config.json of a run, which is repeated in another folder; options given here count "
        "instead of the file's.",
        rich_help_panel="Run",
    )
    annotations: dict[str, Any] = {"context": typer.Context, "config": Annotated[Path | None, of_file]}
    annotations |= {
        field.name: Annotated[
            hints[field.name],
            typer.Option(
                *([field.metadata["flag"]] if field.metadata["flag"] else []),
                help=field.metadata["help"],
                rich_help_panel=field.metadata["group"],
            ),
        ]
        for field in dataclasses.fields(TrainConfig)
    }
    values = {"context": inspect.Parameter.empty, "config": None} | vars(defaults)
    # typer reads a command's options from its signature and annotations.
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=values[name], annotation=annotation)
        for name, annotation in annotations.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = annotations
    return command


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _help(framework: str) -> str:
    return (
        f"Train SASRec, or another --model, with {framework} to predict each user's next item.\n\n"
        "The loss is cross-entropy over all items, or with sampled negatives (CCE-) where all would cost more than a "
        "fifth of the model's time (--negatives), or another --loss. Validation ranks the full catalog; the weights "
        "with the best validation NDCG@10 are kept and tested at the end.\n\n"
        f"Try it: cce-minus-{framework} train --epochs 3\n\n"
        f"Own data: cce-minus-{framework} train --data events.parquet --user-column customer --item-column "
        "sku --time-column bought_at\n\n"
        f"Go on with a run: cce-minus-{framework} train --resume --out runs/shop\n\n"
        f"Repeat one: cce-minus-{framework} train --config runs/shop/config.json --seed 1 --out runs/shop-1"
    )
