"""``python -m benchmarks.serving``: put a server under load, and print what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..command_line import fail
from ..runs.results import versions
from ..study.results import ResultsError, read, replace_rows

CSV = Path(__file__).parent.parent / "results" / "serving.csv"
CASE = ("framework", "data", "clients", "seconds", "turns")
MEASURED = (
    "requests", "per_second", "p50_ms", "p99_ms", "most_ms", "dropped", "wrong", "reloads", "rows_per_call",
    "memory_before_mib", "memory_halfway_mib", "memory_after_mib",
)  # fmt: skip
COLUMNS = (
    *CASE, *MEASURED, "cpu", "gpu", "cores", "python", "torch", "triton", "jax", "starlette", "uvicorn", "commit",
)  # fmt: skip

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)
CsvOption = Annotated[Path, typer.Option("--csv", help="The file of results.")]


@app.command()
def run(
    clients: Annotated[int, typer.Option(help="Connections that ask at once.", min=1)] = 200,
    seconds: Annotated[float, typer.Option(help="Seconds of load.", min=3)] = 60,
    reloads: Annotated[int, typer.Option(help="How often the served run is replaced meanwhile.", min=1)] = 2,
    framework: Annotated[str, typer.Option(help="torch or jax.")] = "torch",
    data: Annotated[str, typer.Option(help="A log, or the name of a data set.")] = "ml-100k",
    runs: Annotated[Path | None, typer.Option(help="Folder that keeps the two runs; else they are removed.")] = None,
    csv: CsvOption = CSV,
    commit: Annotated[str, typer.Option(help="Commit to note; the checkout's where there is one.")] = "",
) -> None:
    """Train two runs, serve them, and ask: a row of results, printed and added to the file."""
    from .server import measure

    if framework not in ("torch", "jax"):
        raise fail(f"framework: expected torch or jax, got {framework}")
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as temporary:
        row = measure(runs or Path(temporary), framework, data, clients=clients, seconds=seconds, turns=reloads)
    packages = {name: importlib.metadata.version(name) for name in ("starlette", "uvicorn")}
    case = dict(zip(CASE, (framework, Path(data).name, clients, seconds, reloads), strict=True))
    full = {**case, **row, "cpu": _cpu(), **versions(commit or head), **packages}
    try:
        replace_rows(csv, [full], COLUMNS, key=CASE, place=_place)
    except ResultsError as error:
        raise fail(error) from error
    typer.echo(_table([{name: str(value) for name, value in full.items()}]))


@app.command()
def table(csv: CsvOption = CSV) -> None:
    """Print a Markdown table of the file."""
    try:
        rows = read(csv, COLUMNS)
    except ResultsError as error:
        raise fail(error) from error
    if not rows:
        raise fail(f"{csv} has no rows; measure first: python -m benchmarks.serving run")
    typer.echo(_table(rows))


def _place(row: dict[str, str]) -> tuple[int, bool, int]:
    """In the file."""
    return int(row["turns"]), row["framework"] != "torch", int(row["clients"])


_HEADS = {
    "framework": "", "clients": "clients", "requests": "requests", "per_second": "a second", "p50_ms": "p50, ms",
    "p99_ms": "p99, ms", "most_ms": "longest, ms", "dropped": "dropped", "wrong": "wrong", "reloads": "reloads",
    "rows_per_call": "rows a call", "memory_before_mib": "MiB before", "memory_halfway_mib": "halfway",
    "memory_after_mib": "after",
}  # fmt: skip


def _table(rows: list[dict[str, str]]) -> str:
    lines = [f"| {' | '.join(_HEADS.values())} |", f"|---{'|---:' * (len(_HEADS) - 1)}|"]
    lines += [f"| {' | '.join(row[name] for name in _HEADS)} |" for row in rows]
    machines = sorted({_machine(row) for row in rows})
    return "\n".join([*lines, "", *machines])


def _machine(row: dict[str, str]) -> str:
    return (
        f"{row['cpu']}, {row['cores']} cores, Python {row['python']}, torch {row['torch']}, jax {row['jax']}, "
        f"starlette {row['starlette']}, uvicorn {row['uvicorn']}, commit {row['commit']}"
    )


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", path.read_text()) if path.exists() else None
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    app()
