"""What a measured implementation is to the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .shapes import Shape

Loss = Callable[..., Any]
Ids = Callable[[Shape, int, str], np.ndarray | None]

PAPER = "paper's kernel"
UNIFORM = "uniform"  # what the other losses and samplers are related to
JAX = " (JAX)"  # ends the names of JAX's providers that have a twin


class Unavailable(Exception):
    """A provider that cannot be had here; the message says why."""


def gathered_bytes(shape: Shape) -> int:
    """What plain implementations hold: drawn rows and their gradients in 2 bytes, about 15 numbers a logit in 4."""
    return shape.pairs * (4 * shape.dim + 60)


@dataclass(frozen=True)
class Provider:
    """``loss(hidden, table, target, negatives, seed)`` is the mean loss on arrays of the framework, drawing included.

    ``seed`` is None in PyTorch and a PRNG key in JAX where steps are timed, and an int for the gate. ``ids(shape, seed,
    device)`` are then the (N, K) ids drawn, or None for every item; ``reference`` is the same loss in plain code
    instead. Without both the gate leaves the provider out. ``least_extra`` estimates the bytes that a step takes above
    inputs and gradients; ``refuses`` says why it cannot run at a shape. ``losses``: it belongs to the shapes of that
    kind. ``arrays``: NumPy arrays that both functions are given beside these, by argument. ``candidates``: how many
    negatives a row has at a shape.
    """

    name: str
    framework: Literal["torch", "jax"]
    full: bool
    loss: Loss
    ids: Ids | None = None
    ours: bool = False
    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    least_extra: Callable[[Shape], int] = lambda _: 0
    refuses: Callable[[Shape], str | None] = lambda _: None
    losses: bool = False
    reference: Loss | None = None
    arrays: Callable[[Shape], dict[str, Any]] = lambda _: {}
    candidates: Callable[[Shape], int] = lambda shape: shape.negatives

    def belongs_to(self, shape: Shape) -> bool:
        return (self.full, self.losses) == (shape.full, shape.losses)
