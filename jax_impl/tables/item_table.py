"""A table of item vectors of which a step touches few rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from ..loss.working_set import WorkingSet
from .row_set import RowSet, rows_of

WEIGHT_DTYPES = ("float32", "bfloat16")


class ItemTable(nnx.Module):
    """Vectors (V, D) of items, float32 or bfloat16, in the parameter ``weight``.

    ``table(row_set(ids))`` are these rows (T, D), float32. Take the gradient of a loss by them, not by the table, whose
    own is as large as itself, and move the table by `RowWiseAdagrad`, `PartialRowWiseAdam` or `LazyAdam`:

        rows = table(chosen)
        loss, grad = jax.value_and_grad(loss_of_rows)(rows)
        table.weight[...], state = optimizer.update(table.weight[...], state, chosen, grad)

    Vectors start normal with a standard deviation of ``std``.
    """

    def __init__(
        self, num_items: int, dim: int, *, rngs: nnx.Rngs, dtype: Any = jnp.float32, std: float = 0.02
    ) -> None:
        shape = as_index("num_items", num_items), as_index("dim", dim)
        if min(shape) < 1:
            raise ArgumentValueError("num_items, dim", "ints of at least 1", shape)
        self.weight = nnx.Param(_start(rngs.params(), shape, std, _checked(dtype)))

    @classmethod
    def from_embed(cls, embed: nnx.Embed) -> ItemTable:
        """A table with the very parameter of an embedding."""
        weight = embed.embedding
        _checked(weight[...].dtype)
        table = nnx.eval_shape(lambda: cls(*weight[...].shape, rngs=nnx.Rngs(0)))  # nothing of the size is made
        table.weight = weight
        return table

    def to_embed(self) -> nnx.Embed:
        """An embedding with the table's parameter."""
        embed = nnx.eval_shape(lambda: nnx.Embed(*self.weight[...].shape, rngs=nnx.Rngs(0)))
        embed.embedding = self.weight
        return embed

    def __call__(self, rows: RowSet | WorkingSet) -> Array:
        return rows_of(self.weight[...], rows)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _start(key: Array, shape: tuple[int, int], std: float, dtype: Any) -> Array:
    """One program, so that a bfloat16 table is never there in float32."""
    return (std * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def _checked(dtype: Any) -> Any:
    if jnp.dtype(dtype).name not in WEIGHT_DTYPES:
        raise ArgumentTypeError("dtype", "float32 or bfloat16", jnp.dtype(dtype).name)
    return jnp.dtype(dtype)
