"""What the checks of options that belong together share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from .errors import ConfigError


def require_defaults(
    names: Sequence[str], choice: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raises ``ConfigError`` for one of ``names`` whose option is not its default, as ``choice`` would ignore it."""
    for name in names:
        if options[name] != defaults[name]:
            raise ConfigError(
                f"{name}: expected its default {defaults[name]} with {choice}, which does not use it, got "
                f"{options[name]}"
            )


def require(condition: bool, name: str, expected: str, got: object) -> None:
    """Raises ``ConfigError`` that names the option ``name`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {got}")


def check_type(name: str, value: object, hint: object) -> None:
    """Raises ``ConfigError`` unless ``value`` is of the type ``hint``: JSON and keyword arguments come unchecked. A
    bool is no int here, and an int is a fine float."""
    if hint is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif hint is float or (float in get_args(hint) and value is not None):
        good = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        good = isinstance(value, hint)  # pyright: ignore[reportArgumentType]
    expected = getattr(hint, "__name__", str(hint))
    require(good, name, f"a value of type {expected}", f"{value!r} of type {type(value).__name__}")


@contextmanager
def options_refused(*errors: type[Exception]) -> Iterator[None]:
    """Raises ``ConfigError`` with the text of ``errors``, in which a loss names the option that it refuses."""
    try:
        yield
    except errors as error:
        raise ConfigError(str(error)) from error


def require_schema(name: str, got: object, newest: int) -> None:
    """Raises ``ConfigError`` for what a later version has written: ``got`` is the number of its schema."""
    require(type(got) is int and 1 <= got <= newest, name, f"schema 1 to {newest} (a later version wrote it?)", got)
