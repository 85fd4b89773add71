"""Run a case through the public JAX API."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus.jax_impl import linear_cross_entropy, sampled_linear_binary_cross_entropy, sampled_linear_cross_entropy
from cce_minus.jax_impl.tables.working_set import working_set
from cce_minus.kernels import History
from cce_minus.kernels.negatives.samplers import Sampler
from jax import Array

from tests.inputs import Case
from tests.loss.expected import Expected, How, Result, options, softmax_options

Arrays = dict[str, Any]


def to_numpy(array: Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32), np.float64)


@functools.lru_cache(maxsize=8)
def _program(case: Case, how: How, sampler: Sampler | None, impl: str) -> Callable[[Arrays, Arrays], Any]:
    """Loss, lse and gradients by leaves and other arrays: compiled once for all data of a case."""

    def objective(leaves: Arrays, rest: Arrays) -> tuple[Array, tuple[Array, Array]]:
        def rows(name: str, array: Any) -> Any:
            return array if how.leading is None else array.reshape(*how.leading, -1, *array.shape[1:])

        leaves = leaves | {name: rest[name] for name in how.frozen if name in rest}
        ids = rest.get("ids")
        negatives: Any = sampler if ids is None else ids if ids.ndim == 1 else rows("ids", ids)
        arguments = (
            rows("hidden", leaves["hidden"]), leaves["table"] if case.contiguous else leaves["table"].T,
            rows("target", rest["target"]),
        )  # fmt: skip
        keywords = options(case) | {
            "linear_bias": leaves.get("bias"),
            "sample_weight": rows("weight", leaves["weight"]) if "weight" in leaves else None,
            "logit_scale": leaves.get("scale", case.logit_scale),
            "impl": impl,
            "history": History(rows("users", rest["users"]), *rest["history"]) if "users" in rest else None,
        }
        seed, log_q = {"seed": rest["seed"]}, rest.get("log_q")
        if how.working_set:
            given = working_set(
                negatives, arguments[2], num_items=case.num_items, ignore_index=case.ignore_index,
                history=keywords.pop("history"), log_q=log_q, impl=impl, **seed,
            )  # fmt: skip
            log_q = None
            arguments, negatives, seed = (arguments[0], arguments[1][given.ids], given.target), given, {}
            if "bias" in leaves:
                keywords["linear_bias"] = leaves["bias"][given.ids]
        if how.full:
            del keywords["remove_accidental_hits"]
            loss, lse = linear_cross_entropy(*arguments, return_lse=True, **keywords)
        elif case.positive_weight is None:
            loss, lse = sampled_linear_cross_entropy(
                *arguments, negatives, log_q=log_q, **seed, **softmax_options(case), **keywords
            )
        else:
            loss = sampled_linear_binary_cross_entropy(*arguments, negatives, gbce_t=case.gbce_t, **seed, **keywords)
            lse = jnp.zeros(case.num_rows)
        lse = lse.reshape(-1)
        if case.reduction == "none":
            assert loss.shape == arguments[2].shape
            loss = loss.reshape(-1)
            of_loss = (rest["grad_loss"] * loss).sum()
        else:
            of_loss = loss
        return of_loss + (rest["grad_lse"] * lse).sum(), (loss, lse)

    return jax.jit(jax.value_and_grad(objective, has_aux=True))


def _seed(how: How) -> Any:
    if how.seed_kind == "key":
        return jax.random.key(how.seed)
    if how.seed_kind == "one":
        return jnp.array([how.seed], jnp.uint32)
    return jnp.array([how.seed >> 32, how.seed & 0xFFFFFFFF], jnp.uint32)  # a Python int would be compiled for


def run_jax(want: Expected, impl: str) -> Result:
    case, inputs, how = want.case, want.given, want.how
    dtype = str(want.dtype).removeprefix("torch.")
    leaves = {
        "hidden": jnp.asarray(inputs.hidden, dtype),
        "table": jnp.asarray(
            inputs.table if case.contiguous else inputs.table.T, "float32" if how.wide_table else dtype
        ),
    }
    if inputs.bias is not None:
        leaves["bias"] = jnp.asarray(inputs.bias, "float32" if how.wide_bias else dtype)
    if inputs.sample_weight is not None:
        leaves["weight"] = jnp.asarray(inputs.sample_weight)
    if how.scale == "array":
        leaves["scale"] = jnp.float32(case.logit_scale)
    rest = {
        "target": jnp.asarray(inputs.target, jnp.int32),
        "seed": _seed(how),
        "grad_loss": inputs.grad_loss,
        "grad_lse": inputs.grad_lse,
    }
    explicit = isinstance(want.negatives, np.ndarray)
    if explicit:
        rest["ids"] = jnp.asarray(want.negatives, jnp.int32)
    if inputs.log_q is not None:
        rest["log_q"] = inputs.log_q
    if inputs.history is not None:
        users, *items = (jnp.asarray(array, jnp.int32) for array in inputs.history)
        rest |= {"users": users, "history": tuple(items)}
    asked = {name: leaf for name, leaf in leaves.items() if name not in how.frozen}
    rest |= {name: leaf for name, leaf in leaves.items() if name in how.frozen}
    program = _program(case, replace(how, seed=0), None if explicit else want.negatives, impl)  # type: ignore[arg-type]
    (_, (loss, lse)), grads = program(asked, rest)
    of_table = grads.get("table")
    got = {name: to_numpy(grad) for name, grad in grads.items()}
    return Result(
        loss=to_numpy(loss),
        lse=to_numpy(lse),
        dhidden=got.get("hidden"),
        dtable=None if of_table is None else got["table"] if case.contiguous else got["table"].T,
        dbias=got.get("bias"),
        dscale=float(grads["scale"]) if "scale" in grads else None,
        dweight=got.get("weight"),
    )
