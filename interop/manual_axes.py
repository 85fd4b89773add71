"""Which manual mesh axes (``jax.shard_map``'s) a value varies over; empty elsewhere and under ``check_vma=False``."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from jax import Array

T = TypeVar("T")


def varying_axes(tree: Any) -> frozenset[str]:
    """The axes that any array of ``tree`` varies over."""
    axes = (jax.typeof(leaf).mat.varying for leaf in jax.tree.leaves(tree))
    return frozenset[str]().union(*axes)


def as_varying(tree: T, axes: frozenset[str]) -> T:
    """``tree`` with every array marked as varying over ``axes``, which its gradient is then summed over."""

    def mark(leaf: Array) -> Array:
        missing = axes - varying_axes(leaf)
        return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.map(mark, tree)
