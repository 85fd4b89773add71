"""Optimizers of item tables: an update moves the rows that were touched, in place where the table is donated, and reads
and writes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ...interop import own_settings
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index, as_number
from ...kernels.plan.problem import interprets
from ...kernels.plan.row_update import RowRule, Rule, row_rule
from ..loss.seeds import as_seed, seed_words
from ..loss.working_set import WorkingSet
from .row_set import RowSet
from .update import update_rows

Rate = float | Callable[[Array], Any]
"""A learning rate, or a schedule of Optax's: the rate of the update that so many were before."""


class RowState(NamedTuple):
    """What an optimizer keeps of a table: ``step`` (1,) int32 updates so far, the first moments (V, D), None for
    Adagrad, and the second ones, (V,) or (V, D), float32."""

    step: Array
    first: Array | None
    second: Array


def start_state(weight: Array, rule: RowRule) -> RowState:
    """The state of a table (V, D) that has not moved."""
    first = jnp.zeros(weight.shape, jnp.float32) if rule.has_first else None
    return RowState(jnp.zeros(1, jnp.int32), first, jnp.zeros(rule.second_shape(*weight.shape), jnp.float32))


@dataclass(frozen=True, kw_only=True)
class RowOptimizer:
    """What `RowWiseAdagrad`, `PartialRowWiseAdam` and `LazyAdam` share.

    Rows that are not touched keep their weights and states; weight decay is decoupled, and a row feels it when it is
    touched. A bfloat16 table is rounded at random, without bias, by (``seed``, update, row, column), or without
    ``stochastic_rounding`` to the nearest. States are float32. Under ``jax.jit`` with the table and its state donated,
    both stay where they are in memory.
    """

    learning_rate: Rate
    eps: float = 1e-8
    weight_decay: float = 0.0
    stochastic_rounding: bool = True
    seed: int = 0
    impl: str = "auto"

    _rule: ClassVar[Rule]

    def __post_init__(self) -> None:
        if not callable(self.learning_rate) and not as_number("learning_rate", self.learning_rate) >= 0:
            raise ArgumentValueError("learning_rate", "a number of at least 0", self.learning_rate)
        if self.impl not in ("auto", "triton", "reference"):
            raise ArgumentValueError("impl", "'auto', 'triton' or 'reference'", self.impl)
        if self.impl == "triton" and jax.default_backend() != "gpu" and not interprets():
            raise ArgumentValueError("impl", "'auto' or 'reference' without a GPU (Triton needs CUDA)", "'triton'")
        as_index("seed", self.seed)
        self.rule()

    def rule(self) -> RowRule:
        return row_rule(self._rule, betas=self._betas, eps=self.eps, weight_decay=self.weight_decay)

    @property
    def _betas(self) -> tuple[float, float]:
        return 0.0, 0.0

    def init(self, weight: Array) -> RowState:
        """The state of a table (V, D) that has not moved."""
        return start_state(weight, self.rule())

    def update(self, weight: Array, state: RowState, rows: RowSet | WorkingSet, grad: Array) -> tuple[Array, RowState]:
        """``weight`` (V, D) and its state with ``rows`` moved by their gradient ``grad`` (T, D)."""
        if weight.dtype not in (jnp.float32, jnp.bfloat16):
            raise ArgumentTypeError("weight", "an array of float32 or bfloat16", weight.dtype)
        rule = self.rule()
        shapes = weight.shape if rule.has_first else None, rule.second_shape(*weight.shape)
        got = None if state.first is None else state.first.shape, state.second.shape
        if got != shapes:
            raise ArgumentValueError("state", f"moments of shapes {shapes}, those of this rule and table", got)
        if grad.shape != (len(rows.ids), weight.shape[1]):
            raise ArgumentValueError("grad", f"shape {(len(rows.ids), weight.shape[1])}", grad.shape)
        with own_settings():
            before = state.step[0]
            rate = self.learning_rate(before) if callable(self.learning_rate) else self.learning_rate
            rounds = self.stochastic_rounding and weight.dtype == jnp.bfloat16
            seed = seed_words(as_seed(self.seed)) if rounds else None
            moved, first, second = update_rows(
                weight, state.first, state.second, rows.ids, rows.count, grad,
                jnp.asarray(rate, jnp.float32).reshape(1), state.step + 1, seed, rule, self.impl,
            )  # fmt: skip
        return moved, RowState(state.step + 1, first, second)


@dataclass(frozen=True, kw_only=True)
class RowWiseAdagrad(RowOptimizer):
    """Adagrad with one number a row: the sum of its mean squared gradients. ``s <- s + mean(g^2)``, ``w <- (1 - lr
    weight_decay) w - lr g / (sqrt(s) + eps)``; FBGEMM's EXACT_ROWWISE_ADAGRAD."""

    learning_rate: Rate = 1e-2
    _rule = "rowwise_adagrad"


@dataclass(frozen=True, kw_only=True)
class PartialRowWiseAdam(RowOptimizer):
    """Adam whose second moment is one number a row. ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) mean(g^2)``, ``w
    <- (1 - lr weight_decay) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)`` at update t of the table; FBGEMM's
    PARTIAL_ROWWISE_ADAM."""

    learning_rate: Rate = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    _rule = "partial_rowwise_adam"

    @property
    def _betas(self) -> tuple[float, float]:
        return self.betas


@dataclass(frozen=True, kw_only=True)
class LazyAdam(PartialRowWiseAdam):
    """Adam whose moments move with the rows that are touched. ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``,
    ``w <- (1 - lr weight_decay) w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)`` at update t of the table;
    torch.optim.SparseAdam's rule."""

    _rule = "lazy_adam"
