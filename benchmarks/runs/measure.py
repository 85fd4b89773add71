"""The parts of the benchmark: each yields its rows as they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..study.pool import alone
from .cases import (
    COMMAND,
    DETERMINISTIC,
    FRAMEWORKS,
    GIT_COMMITS,
    MILLION,
    PEERS,
    QUALITY,
    RANKINGS,
    STEPS,
    Options,
)
from .commands import from_empty_caches, with_warm_caches
from .epoch import measure_epoch, measure_gpu, measure_steps
from .peer import RECTOOLS, PeerMissingError, check_rectools, measure_rectools
from .ranking import PLAIN, PROVIDERS, measure_rankings
from .synthetic import write_log

Rows = Iterator[dict[str, object]]
Say = Callable[[str], None]


def measure(part: str, providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    """The rows of ``part`` for those of ``providers`` that it has, with data sets of the folder ``data``; ``folder`` is
    for runs and caches. ``say`` is told what is left out."""
    for row in _PARTS[part](providers, data, folder, say):
        yield {"part": part, **row}


def _epoch(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    options = _of(data, "git_commits", GIT_COMMITS)
    for framework in _ours(providers):
        row = {"dataset": "git_commits", "method": STEPS, "framework": framework}
        row |= alone(measure_epoch, framework, options)
        yield {**row, "gpu_seconds": None}  # what follows may not be allowed on this machine
        busy = alone(measure_gpu, framework, options)
        if busy is None:
            say(f"epoch, {framework}: no kernels in the trace; is there a GPU, and may CUPTI record it?")
        else:
            yield {**row, "gpu_seconds": busy}
        row = {"dataset": "git_commits", "method": DETERMINISTIC, "framework": framework}
        yield {**row, **alone(measure_steps, framework, {**options, "deterministic": True})}


def _command(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    options = _of(data, "git_commits", COMMAND)
    for framework in _ours(providers):
        for row in from_empty_caches(framework, options, _own(folder, "command", framework)):
            yield {"dataset": "git_commits", "framework": framework, **row}


def _million(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    write_log(folder / "million.parquet")
    options = _of(folder, "million", MILLION)
    for framework in _ours(providers):
        row = with_warm_caches(framework, options, _own(folder, "million", framework))
        yield {"dataset": "million", "framework": framework, **row}


def _quality(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    options = _of(data, "amazon_beauty", QUALITY)
    for framework in _ours(providers):
        row = with_warm_caches(framework, options, _own(folder, "quality", framework))
        yield {"dataset": "amazon_beauty", "framework": framework, **row}


def _ranking(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    for provider in (name for name in PROVIDERS if name in providers):
        for row in alone(measure_rankings, provider, RANKINGS):
            yield {"framework": provider, **row}


def _peer(providers: list[str], data: Path, folder: Path, say: Say) -> Rows:
    for method, (ours, theirs) in PEERS.items():
        options = _of(data, "git_commits", {**GIT_COMMITS, **ours})
        for framework in _ours(providers):
            row = alone(measure_steps, framework, options)
            yield {"dataset": "git_commits", "method": method, "framework": framework, **row}
        if RECTOOLS in providers:
            try:
                alone(check_rectools)
            except PeerMissingError as reason:
                say(f"peer, {method}: skipped: {reason}")
                continue
            row = alone(measure_rectools, options, theirs)
            yield {"dataset": "git_commits", "method": method, "framework": RECTOOLS, **row}


_PARTS: dict[str, Callable[[list[str], Path, Path, Say], Rows]] = {
    "epoch": _epoch,
    "command": _command,
    "million": _million,
    "quality": _quality,
    "ranking": _ranking,
    "peer": _peer,
}

ALL_PROVIDERS = (*FRAMEWORKS, PLAIN, RECTOOLS)


def _of(folder: Path, name: str, options: Options) -> Options:
    return {"data": str((folder / f"{name}.parquet").absolute()), **options}


def _own(folder: Path, part: str, framework: str) -> Path:
    path = folder / f"{part}-{framework}"
    path.mkdir()
    return path


def _ours(providers: list[str]) -> list[str]:
    return [framework for framework in FRAMEWORKS if framework in providers]
