"""Steps of JAX on a catalog: chained in one program, on the host's clock."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from cce_minus.jax_impl import RowWiseAdagrad, UniformNegatives, rows_of, sampled_linear_cross_entropy, working_set

from .cases import GROUP, INPUTS, NEGATIVES, ROWS, Catalog

_ROUNDS, _STEPS = 5, 100
_SAMPLER = UniformNegatives(NEGATIVES, GROUP)


def measure(catalog: Catalog) -> dict[str, object]:
    """Milliseconds of a step, the median over chains, and MiB that XLA plans: arrays, and temporaries above them."""
    optimizer = RowWiseAdagrad(learning_rate=0.01)
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (ROWS, catalog.dim), jnp.bfloat16)
    target = jax.random.randint(keys[1], (ROWS,), 0, catalog.items)
    inputs = jax.random.randint(keys[2], (INPUTS,), 0, catalog.items)
    table = jnp.full((catalog.items, catalog.dim), 0.01, catalog.dtype)
    state = optimizer.init(table)

    @partial(jax.jit, donate_argnums=(0, 1))
    def chain(table: Any, state: Any, hidden: Any, first: Any) -> Any:
        def step(carry: Any, number: Any) -> Any:
            table, state = carry
            chosen = working_set(
                _SAMPLER, target, num_items=catalog.items, seed=jnp.stack([first, number]), inputs=inputs
            )

            def loss_of(rows: Any, hidden: Any) -> Any:
                return sampled_linear_cross_entropy(hidden, rows, chosen.target, chosen)

            loss, (grad, of_hidden) = jax.value_and_grad(loss_of, (0, 1))(rows_of(table, chosen), hidden)
            table, state = optimizer.update(table, state, chosen, grad)
            return (table, state), loss + of_hidden.astype(jnp.float32).mean()  # which XLA would leave out

        return jax.lax.scan(step, (table, state), jnp.arange(_STEPS, dtype=jnp.uint32))

    compiled = chain.lower(table, state, hidden, jnp.uint32(0)).compile()
    planned = compiled.memory_analysis()
    times: list[float] = []
    for number in range(_ROUNDS + 1):
        began = time.perf_counter()
        (table, state), losses = compiled(table, state, hidden, jnp.uint32(number))
        jax.block_until_ready(losses)
        times.append((time.perf_counter() - began) / _STEPS * 1000)
    mib = None
    if planned is not None:
        held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
        mib = (held + planned.temp_size_in_bytes) / 2**20
    return {"ms": statistics.median(times[1:]), "mib": mib}
