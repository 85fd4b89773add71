"""Updates of single rows in float64, by the formulas of ``plan/row_update.py``, row by row; and bits of the rounding in
Python's own integers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from cce_minus.kernels.plan.row_update import RowRule

WORD, WORDS = 2**32 - 1, 2**64 - 1


class Table(NamedTuple):
    """A table with its states, float64; ``first`` is unused by Adagrad."""

    weight: np.ndarray
    first: np.ndarray
    second: np.ndarray


def updated(table: Table, rule: RowRule, ids: np.ndarray, grad: np.ndarray, rate: float, step: int) -> Table:
    """With the rows ``ids``, which are distinct, moved by their ``grad``."""
    weight, first, second = (array.copy() for array in table)
    b1, b2 = rule.beta1, rule.beta2
    for row, g in zip(ids, grad, strict=True):
        mean_square = sum(x * x for x in g) / len(g)
        w = (1 - rate * rule.weight_decay) * weight[row]
        if rule.rule == "rowwise_adagrad":
            second[row] += mean_square
            weight[row] = w - rate * g / (math.sqrt(second[row]) + rule.eps)
            continue
        c1, c2 = 1 - b1**step, 1 - b2**step
        first[row] = b1 * first[row] + (1 - b1) * g
        if rule.rule == "partial_rowwise_adam":
            second[row] = b2 * second[row] + (1 - b2) * mean_square
            weight[row] = w - rate * (first[row] / c1) / (math.sqrt(second[row] / c2) + rule.eps)
        else:
            second[row] = b2 * second[row] + (1 - b2) * g * g
            weight[row] = w - rate * math.sqrt(c2) / c1 * first[row] / (np.sqrt(second[row]) + rule.eps)
    return Table(weight, first, second)


def _mix64(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & WORDS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & WORDS
    return x ^ (x >> 31)


def _stream64(seed: int, index: int) -> int:
    return _mix64((seed + (index + 1) * 0x9E3779B97F4A7C15) & WORDS)


def _murmur(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x85EBCA6B & WORD
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & WORD
    return x ^ (x >> 16)


def rounding_bits(seed: int, step: int, row: int, column: int) -> int:
    key = _stream64(_stream64(_stream64(seed & WORDS, 5), step), row)
    return _murmur((_murmur(column ^ (key >> 32)) + (key & WORD)) & WORD) >> 16
