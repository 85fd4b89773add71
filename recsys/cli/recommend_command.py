"""The command recommend of both frameworks' command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from ..serving.recommendation_files import check_output, write_recommendations
from ..serving.recommendations import Recommended, recommend_run
from ..serving.selection import Selection
from ..serving.served_run import Load, ServedRun
from .serving_options import Data, Device, Run

_WHO, _WHAT = "Whom to recommend to", "What to recommend"


def add_recommend(
    app: typer.Typer, framework: str, load: Load, guarded: Callable[[Callable[[], object]], None]
) -> None:
    """Adds the command to ``app``; see `add_serving`."""

    @app.command("recommend", help=_HELP.format(framework=framework))
    def recommend(
        run: Run = Path(f"runs/{framework}"),
        user: Annotated[
            list[str] | None,
            typer.Option(help="A user of the run's data, by its id there; repeat for more.", rich_help_panel=_WHO),
        ] = None,
        users: Annotated[
            Path | None,
            typer.Option(
                help="File of users' ids: one a line, or CSV, TSV, Parquet or JSON lines with the run's user column.",
                rich_help_panel=_WHO,
            ),
        ] = None,
        all_users: Annotated[
            bool, typer.Option("--all-users", help="All users of the run's data.", rich_help_panel=_WHO)
        ] = False,
        sequences: Annotated[
            Path | None,
            typer.Option(help="JSON or Parquet file of item sequences, the latest item last.", rich_help_panel=_WHO),
        ] = None,
        unknown_users: Annotated[
            str,
            typer.Option(
                help="Users that the data lack: error, skip (left out), or popular (the most popular items of the "
                "training events, without a score).",
                rich_help_panel=_WHO,
            ),
        ] = "error",
        skip_unknown: Annotated[
            bool,
            typer.Option(help="Leave items that the model does not know out of sequences.", rich_help_panel=_WHO),
        ] = False,
        k: Annotated[int, typer.Option(help="Items for each user.", rich_help_panel=_WHAT)] = 10,
        filter_seen: Annotated[
            bool, typer.Option(help="Leave out items that are already in the history.", rich_help_panel=_WHAT)
        ] = True,
        candidates: Annotated[
            Path | None,
            typer.Option(
                help="File of items, one id a line or a table with the run's item column: only these are recommended.",
                rich_help_panel=_WHAT,
            ),
        ] = None,
        exclude: Annotated[
            Path | None, typer.Option(help="File of items that are not recommended.", rich_help_panel=_WHAT)
        ] = None,
        data: Data = None,
        output: Annotated[
            Path | None,
            typer.Option(
                help="Write a file instead of a table: .json or .parquet with a row a user, .csv or .jsonl with a row "
                "an item."
            ),
        ] = None,
        device: Device = "auto",
    ) -> None:
        def work() -> None:
            if output is not None:
                check_output(output)
            selection = Selection(user or (), users, all_users, sequences, unknown_users, skip_unknown)
            parts = recommend_run(
                ServedRun.open(run, data), load, selection, k=k,
                filter_seen=filter_seen, candidates=candidates, exclude=exclude, device=device,
            )  # fmt: skip
            if output is not None:
                typer.echo(f"{output}: {write_recommendations(parts, output)} users")
                return
            for part in parts:
                for line in _lines(part):
                    tqdm.write(line)  # above the bar

        guarded(work)


def _lines(part: Recommended) -> Iterator[str]:
    """What a terminal shows of a part."""
    for row, is_unknown in zip(part.rows(), part.requests.unknown, strict=True):
        yield f"user {row.user}, " + (
            "who is unknown: the most popular items" if is_unknown else f"who had last {' - '.join(row.last_seen)}"
        )
        for rank, (item, name, score) in enumerate(zip(row.items, row.names, row.scores, strict=True), start=1):
            told = f"{'':8}" if score is None else f"{score:8.4f}"
            yield f"  {rank:>3}  {told}  {name}" + ("" if name == str(item) else f"  [{item}]")


_HELP = """Recommend the best next items over the full catalog, with their scores.

For users of the data: cce-minus-{framework} recommend --user 42 --user 7

For all of them, a row an item: cce-minus-{framework} recommend --all-users --output top.csv

For users of a file, among items of another: cce-minus-{framework} recommend --users today.txt --unknown-users popular
--candidates in-stock.csv

For sequences of your own: cce-minus-{framework} recommend --sequences histories.json --k 20 --output top.parquet
"""
