"""Files that a user names: what the system refuses becomes an error that names the option."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError


@contextmanager
def usable(option: str, expected: str, *errors: type[Exception]) -> Iterator[None]:
    """Raises ``ConfigError`` that names ``option`` and what it expects for what the system refuses to read or write: a
    missing folder, a file in its place, no permission, a full disk. ``errors`` are what libraries raise for the same in
    place of ``OSError``."""
    try:
        yield
    except (OSError, *errors) as error:
        raise ConfigError(f"{option}: expected {expected}, got: {error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to, which then takes its place: a process killed meanwhile leaves the old
    file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
