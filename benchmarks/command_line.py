"""What the benchmarks' commands share: lists of names as options, and how they end."""

from __future__ import annotations

import typer


def names(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    """The names in ``text``, by commas; ends the command for others than those that are ``known``, and for none."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found or not set(found) <= set(known):
        raise fail(f"{option}: expected some of {', '.join(known)}, got {text}")
    return found


def fail(message: object) -> typer.Exit:
    """Prints the error and returns what ends the command with status 2."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(2)
