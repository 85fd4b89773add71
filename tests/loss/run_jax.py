"""Run a case through the public JAX API."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus.jax_impl import sampled_linear_binary_cross_entropy, sampled_linear_cross_entropy
from cce_minus.kernels import History
from jax import Array

from tests.loss.expected import SEED, Expected, Result, negatives_of, options, softmax_options


def to_numpy(array: Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32), np.float64)


def run_jax(want: Expected, impl: str) -> Result:
    case, inputs = want.case, want.inputs
    dtype = str(want.dtype).removeprefix("torch.")
    negatives = negatives_of(case, inputs)
    explicit = isinstance(negatives, np.ndarray)

    @jax.jit
    def loss_and_gradients(leaves: dict[str, Array], target: Array, ids: Array | None, seed: Array) -> Any:
        def objective(leaves: dict[str, Array]) -> tuple[Array, tuple[Array, Array]]:
            arguments = (
                leaves["hidden"],
                leaves["table"] if case.contiguous else leaves["table"].T,
                target,
                negatives if ids is None else ids,
            )
            keywords = options(case) | {
                "linear_bias": leaves.get("bias"),
                "sample_weight": leaves.get("weight"),
                "logit_scale": leaves["scale"],
                "seed": seed,
                "impl": impl,
                "history": None if inputs.history is None else History(*inputs.history),
            }
            if case.positive_weight is None:
                loss, lse = sampled_linear_cross_entropy(
                    *arguments, log_q=inputs.log_q, **softmax_options(case), **keywords
                )
            else:
                loss = sampled_linear_binary_cross_entropy(*arguments, gbce_t=case.gbce_t, **keywords)
                lse = jnp.zeros(case.num_rows)
            of_loss = (inputs.grad_loss * loss).sum() if case.reduction == "none" else loss
            return of_loss + (inputs.grad_lse * lse).sum(), (loss, lse)

        return jax.value_and_grad(objective, has_aux=True)(leaves)

    leaves = {
        "hidden": jnp.asarray(inputs.hidden, dtype),
        "table": jnp.asarray(inputs.table if case.contiguous else inputs.table.T, dtype),
        "scale": jnp.float32(case.logit_scale),
    }
    if inputs.bias is not None:
        leaves["bias"] = jnp.asarray(inputs.bias, dtype)
    if inputs.sample_weight is not None:
        leaves["weight"] = jnp.asarray(inputs.sample_weight)
    seed = jnp.array([SEED >> 32, SEED & 0xFFFFFFFF], jnp.uint32)
    (_, (loss, lse)), grads = loss_and_gradients(
        leaves,
        jnp.asarray(inputs.target, jnp.int32),
        jnp.asarray(negatives, jnp.int32) if explicit else None,
        seed,
    )
    return Result(
        loss=to_numpy(loss),
        lse=to_numpy(lse),
        dhidden=to_numpy(grads["hidden"]),
        dtable=to_numpy(grads["table"] if case.contiguous else grads["table"].T),
        dbias=to_numpy(grads["bias"]) if "bias" in grads else None,
        dscale=float(grads["scale"]),
        dweight=to_numpy(grads["weight"]) if "weight" in grads else None,
    )
