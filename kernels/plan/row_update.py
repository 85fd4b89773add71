"""Optimizers that move the rows of a table which a step touches: their rules in formulas, and a call's static numbers.

For a touched row w of width D with the gradient g, at update t = 1, 2, .. with the learning rate h; what is said of a
state holds for the row's own, and rows that are not touched keep weights and state:

    rowwise_adagrad       s <- s + mean(g^2)                              w <- (1 - h d) w - h g / (sqrt(s) + eps)
    partial_rowwise_adam  m <- b1 m + (1 - b1) g
                          v <- b2 v + (1 - b2) mean(g^2)
                          w <- (1 - h d) w - h (m / c1) / (sqrt(v / c2) + eps)
    lazy_adam             m <- b1 m + (1 - b1) g
                          v <- b2 v + (1 - b2) g^2
                          w <- (1 - h d) w - h sqrt(c2) / c1 m / (sqrt(v) + eps)

with c1 = 1 - b1^t, c2 = 1 - b2^t, means over the D columns, and the weight decay d, which a row feels when it is
touched. The first two are FBGEMM's EXACT_ROWWISE_ADAGRAD and PARTIAL_ROWWISE_ADAM, the last is torch.optim.SparseAdam,
each with decoupled weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ArgumentValueError
from ..numbers import as_number, as_positive
from .tiles import WholeRows, Work

Rule = Literal["rowwise_adagrad", "partial_rowwise_adam", "lazy_adam"]
RULES: tuple[Rule, ...] = ("rowwise_adagrad", "partial_rowwise_adam", "lazy_adam")


@dataclass(frozen=True)
class RowRule:
    """A rule and its constants."""

    rule: Rule
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def has_first(self) -> bool:
        """Whether there is a first moment (V, D)."""
        return self.rule != "rowwise_adagrad"

    def second_shape(self, num_items: int, dim: int) -> tuple[int, ...]:
        """Of the second moment, or Adagrad's sum."""
        return (num_items, dim) if self.rule == "lazy_adam" else (num_items,)


def row_rule(
    rule: Rule, *, betas: tuple[float, float] = (0.0, 0.0), eps: float = 1e-8, weight_decay: float = 0.0
) -> RowRule:
    """A checked rule; raises ArgumentValueError and ArgumentTypeError."""
    beta1, beta2 = (as_number("betas", beta) for beta in betas)
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ArgumentValueError("betas", "two numbers in [0, 1)", betas)
    decay = as_number("weight_decay", weight_decay)
    if not 0 <= decay < math.inf:
        raise ArgumentValueError("weight_decay", "a finite number of at least 0", weight_decay)
    return RowRule(rule, beta1, beta2, as_positive("eps", eps), decay)


@dataclass(frozen=True)
class RowUpdate(WholeRows):
    """One update: at most ``num_rows`` distinct rows of a table of ``num_items``; ``rounds``: a bfloat16 table is
    rounded at random, by a seed; ``apart``: the weights are the touched rows alone."""

    rule: RowRule
    num_rows: int
    num_items: int
    dim: int
    weight_dtype: str
    rounds: bool
    apart: bool = False

    elements = 4096

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 8 if self.block_d > self.elements else 4, 1)
