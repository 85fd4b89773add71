"""The log in memory that a run is trained on, kept in the run's folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..data.memory_tables import Log, same_tables, write_table
from ..errors import ConfigError
from ..files import usable
from ..run.config import TrainConfig
from ..run.run_directory import find_run


def with_log(config: TrainConfig, framework: str, log: Log, *, is_shared: bool) -> tuple[TrainConfig, list[Path]]:
    """``config`` with a run's ``log`` as its data, and the files and folders that this made, the innermost first: none
    for a path. A run that is resumed keeps the log that it has.

    Raises ``DataError`` for what is no table or lacks a column, and ``ConfigError`` for a folder that `find_run`
    refuses, that has such a file already, or whose run was fitted on another log; also where the training ``is_shared``
    by processes that were started together, each of which would write the file.
    """
    if isinstance(log, str | Path):
        return dataclasses.replace(config, data=str(log)), []
    if is_shared:
        raise ConfigError("log: expected a path that all processes read, got a table in memory of each")
    run = find_run(config, framework)  # refused before anything is written
    if config.resume:
        saved = TrainConfig.read(run.config)
        if not run.holds_log(saved) or not same_tables(log, run.events, columns_of(config), source="log"):
            raise ConfigError("resume: expected the log that the run was fitted on, got another table")
        return dataclasses.replace(config, data=str(run.events)), []
    if run.events.exists():
        raise ConfigError(f"out: expected a folder without {run.events.name}, got {run.path}")
    new = [path for path in (run.events, run.path, *run.path.parents) if not path.exists()]
    try:
        with usable("out", "a folder that can be written"):
            run.path.mkdir(parents=True, exist_ok=True)
            write_table(log, columns_of(config), run.events, source="log")
    except BaseException:
        remove_new(new)
        raise
    return dataclasses.replace(config, data=str(run.events)), new


def remove_new(paths: list[Path]) -> None:
    """Removes these files and folders, as far as nothing else is in them."""
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)
        elif not any(path.iterdir()):
            path.rmdir()


def columns_of(config: TrainConfig) -> list[str]:
    """The columns of a log that are read."""
    columns = [config.user_column, config.item_column, config.time_column]
    return columns + ([config.rating_column] if config.min_rating is not None else [])
