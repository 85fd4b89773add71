"""Numbers that users give, checked, and small arithmetic on whole ones."""

from __future__ import annotations

import math
import numbers
import operator

from .errors import ArgumentTypeError, ArgumentValueError


def as_index(argument: str, value: object) -> int:
    """``value`` as an int; bool, float and arrays raise ArgumentTypeError."""
    if isinstance(value, bool):
        raise ArgumentTypeError(argument, "an int", "bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentTypeError(argument, "an int", type(value).__name__) from None


def as_number(argument: str, value: object) -> float:
    """``value`` as a float; bool and anything but a real number raise ArgumentTypeError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(argument, "a number", type(value).__name__)
    return float(value)


def as_positive(argument: str, value: object) -> float:
    """``value`` as a finite positive float."""
    number = as_number(argument, value)
    if not 0 < number < math.inf:  # comparisons, which torch.compile traces
        raise ArgumentValueError(argument, "a finite number above 0", value)
    return number


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
