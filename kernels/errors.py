"""Typed errors of the loss: every one names the argument, what was expected and what came."""

from __future__ import annotations


class ArgumentError(Exception):
    """A malformed or unsupported argument.

    Attributes: ``argument`` (its name), ``expected`` and ``got`` (both text).
    Concrete errors are also a ``ValueError`` or a ``TypeError``, so existing handlers keep working.
    """

    def __init__(self, argument: str, expected: str, got: object) -> None:
        self.argument, self.expected, self.got = argument, expected, str(got)
        super().__init__(f"{argument}: expected {expected}, got {self.got}")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, str]]:
        return type(self), (self.argument, self.expected, self.got)


class ArgumentValueError(ArgumentError, ValueError):
    """An argument of the right type with a value outside its domain (shape, range, unknown name)."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of the wrong type or dtype, or a feature the given type does not support."""
