"""Run in a process of several devices: every sharded case through the JAX API under ``shard_map``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cce_minus.jax_impl import (
    CatalogShard,
    History,
    UniformNegatives,
    input_rows,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
    working_set,
)
from cce_minus.kernels import ArgumentTypeError
from cce_minus.kernels.draws.shard import Shard
from jax import Array
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from tests.inputs import Case, make_inputs
from tests.interpreter import improve
from tests.loss.expected import options, softmax_options
from tests.loss.samplers import SEED, negatives_of
from tests.loss.shard_cases import CASES, ON_ROWS, interleaved, rows_of, shard_history

OWN = P("shard")


def run(case: Case, num_shards: int, impl: str, check_vma: bool, on_rows: bool = False) -> dict[str, np.ndarray]:
    """Losses and gradients of all shards, by name, each shard's behind the other's; ``on_rows`` of working sets."""
    inputs = make_inputs(case)
    parts = rows_of(case, num_shards)
    most = max(rows.stop - rows.start for rows in parts)
    size = -(-case.num_items // num_shards)

    def by_rows(array: np.ndarray | None, fill: float = 0) -> np.ndarray | None:
        """Each shard's rows, filled up with ignored ones."""
        if array is None:
            return None
        each = [np.pad(array[rows], [(0, most - (rows.stop - rows.start)), *[(0, 0)] * (array.ndim - 1)],
                       constant_values=fill) for rows in parts]  # fmt: skip
        return np.concatenate(each)

    def by_items(array: np.ndarray | None) -> np.ndarray | None:
        """Each shard's items, filled up with what nobody may read."""
        if array is None:
            return None
        whole = np.full((size * num_shards, *array.shape[1:]), np.nan, array.dtype)
        whole[: case.num_items] = array
        return whole.reshape(size, num_shards, -1).swapaxes(0, 1).reshape(-1, *array.shape[1:])

    own = [shard_history(inputs, Shard(case.num_items, num_shards, index)) for index in range(num_shards)]
    history = None
    if inputs.history is not None:
        known = max(len(items) for _, items in own)  # type: ignore[misc]
        history = (
            by_rows(inputs.history[0]),
            np.concatenate([offsets for offsets, _ in own]),  # type: ignore[misc]
            np.concatenate([np.pad(items, (0, known - len(items))) for _, items in own]),  # type: ignore[misc]
        )
    of_shards = {
        "hidden": by_rows(inputs.hidden), "table": by_items(inputs.table), "bias": by_items(inputs.bias),
        "weight": by_rows(inputs.sample_weight),
    }  # fmt: skip
    leaves: dict[str, Any] = {name: value for name, value in of_shards.items() if value is not None}
    leaves["scale"] = np.float32(case.logit_scale)
    others = {
        "target": by_rows(inputs.target.astype(np.int32), case.ignore_index), "log_q": by_items(inputs.log_q),
        "history": history, "u": by_rows(np.nan_to_num(inputs.grad_loss)), "v": by_rows(np.nan_to_num(inputs.grad_lse)),
    }  # fmt: skip
    keywords = options(case) | softmax_options(case) | {"impl": impl, "catalog": CatalogShard(case.num_items, "shard")}

    def call(leaves: dict[str, Array], others: dict[str, Any]) -> tuple[Array, tuple[Array, Array]]:
        given = keywords | {
            "linear_bias": leaves.get("bias"), "sample_weight": leaves.get("weight"), "logit_scale": leaves["scale"],
            "history": others["history"] and History(*others["history"]),
        }  # fmt: skip
        arguments = leaves["hidden"], leaves["table"], others["target"]
        if case.mode == "all" and case.remove_accidental_hits:
            del given["remove_accidental_hits"], given["logq_correction"]
            loss, lse = linear_cross_entropy(*arguments, **given)
        else:
            negatives: Any = negatives_of(case, inputs)
            draw = {"log_q": others["log_q"], "seed": jnp.array(SEEDS), "history": given.pop("history")}
            if on_rows:
                negatives = working_set(
                    negatives, arguments[2], num_items=case.num_items, ignore_index=case.ignore_index,
                    catalog=given["catalog"], impl=impl, **draw,
                )  # fmt: skip
                draw = {}
                arguments = arguments[0], arguments[1][negatives.ids], negatives.target
                if "linear_bias" in given and given["linear_bias"] is not None:
                    given["linear_bias"] = given["linear_bias"][negatives.ids]
            loss, lse = sampled_linear_cross_entropy(*arguments, negatives, **draw, **given)
        total = (others["u"] * loss).sum() if case.reduction == "none" else loss
        return jax.lax.psum(total + (others["v"] * lse).sum(), "shard"), (loss.reshape(-1), lse)

    mesh = jax.make_mesh((num_shards,), ("shard",), (AxisType.Auto,), devices=jax.devices()[:num_shards])
    specs = {name: P() if name == "scale" else OWN for name in leaves}, OWN
    sharded = jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=(P(), (OWN, OWN)), check_vma=check_vma)
    step = jax.jit(jax.value_and_grad(sharded, has_aux=True))
    arrays = jax.tree.map(jnp.asarray, (leaves, others))
    (_, (loss, lse)), grads = step(*arrays)
    again = step(*arrays)
    for first, second in zip(
        jax.tree.leaves(((loss, lse), grads)), jax.tree.leaves((again[0][1], again[1])), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    kept = np.concatenate([np.arange(rows.stop - rows.start) + shard * most for shard, rows in enumerate(parts)])
    results = {f"d{name}": np.asarray(grad) for name, grad in grads.items()} | {"loss": np.asarray(loss)}
    for name in ("dtable", "dbias"):
        if name in results:
            value = interleaved(np.split(results[name], num_shards), 0)
            assert not value[case.num_items :].any()
            results[name] = value[: case.num_items]
    results["lse"] = np.asarray(lse)
    of_rows = ("lse", "dhidden", "dweight", *(["loss"] if case.reduction == "none" else []))
    return results | {name: results[name][kept] for name in of_rows if name in results}


SEEDS = np.array([SEED >> 32, SEED & 0xFFFFFFFF], np.uint32)


def check_malformed(num_shards: int, impl: str) -> None:
    """A target that is no item makes its row NaN, and no other."""
    mesh = jax.make_mesh((num_shards,), ("shard",), (AxisType.Auto,), devices=jax.devices()[:num_shards])
    hidden, table = jnp.ones((4 * num_shards, 8)), jnp.ones((num_shards, 8))
    target = np.arange(4 * num_shards) % num_shards
    target[1], target[2] = num_shards, -7

    def call(hidden: Array, table: Array, target: Array) -> Array:
        catalog = CatalogShard(num_shards, "shard")
        loss = linear_cross_entropy(hidden, table, target, reduction="none", catalog=catalog, impl=impl)
        assert isinstance(loss, Array)
        return loss

    sharded = jax.jit(jax.shard_map(call, mesh=mesh, in_specs=OWN, out_specs=OWN))
    loss, pull = jax.vjp(lambda hidden: sharded(hidden, table, jnp.asarray(target)), hidden)
    wrong = (np.arange(4 * num_shards) == 1) | (np.arange(4 * num_shards) == 2)
    np.testing.assert_array_equal(np.isnan(loss), wrong)
    np.testing.assert_array_equal(np.isnan(pull(jnp.ones_like(loss))[0]).all(1), wrong)


def check_inputs(num_shards: int, impl: str) -> None:
    """What inputs embed is the whole table's rows, and the gradient of a shard's rows what all shards' inputs give."""
    num_items, rng = 304, np.random.default_rng(0)
    table = jnp.asarray(rng.standard_normal((num_items, 4)), jnp.float32)
    inputs = jnp.asarray(rng.integers(-1, num_items, (5 * num_shards, 3)), jnp.int32)
    weight = jnp.asarray(rng.standard_normal((5 * num_shards, 3, 4)), jnp.float32)
    catalog = CatalogShard(num_items, "shard")

    def call(table: Array, inputs: Array, target: Array, dtype: DTypeLike | None) -> Array:
        own = working_set(
            UniformNegatives(8, 16), target, num_items=num_items, seed=1, inputs=inputs, catalog=catalog, impl=impl
        )
        return input_rows(table[own.ids], own, catalog=catalog, dtype=dtype)

    mesh = jax.make_mesh((num_shards,), ("shard",), (AxisType.Auto,), devices=jax.devices()[:num_shards])

    def sharded(table: Array, inputs: Array, target: Array, dtype: DTypeLike | None = None) -> Array:
        of_shards = jax.shard_map(partial(call, dtype=dtype), mesh=mesh, in_specs=OWN, out_specs=OWN)
        return jax.jit(of_shards)(table, inputs, target)

    of_shards = jnp.concatenate([table[shard::num_shards] for shard in range(num_shards)])
    embedded, pull = jax.vjp(lambda table: sharded(table, inputs, jnp.arange(5 * num_shards)), of_shards)
    known = (inputs >= 0)[..., None]
    np.testing.assert_array_equal(embedded, jnp.where(known, table[jnp.maximum(inputs, 0)], 0))
    with pytest.raises(ArgumentTypeError, match=r"^dtype: expected a floating dtype"):
        sharded(of_shards, inputs, jnp.arange(5 * num_shards), jnp.int32)
    halves = sharded(of_shards, inputs, jnp.arange(5 * num_shards), jnp.bfloat16)
    np.testing.assert_array_equal(halves, embedded.astype(jnp.bfloat16))
    want = jnp.zeros_like(table).at[jnp.maximum(inputs, 0)].add(weight * known)
    got = interleaved(np.split(np.asarray(pull(weight)[0]), num_shards), 0)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def main(path: str, num_shards: int, impl: str, names: list[str]) -> None:
    if impl == "triton":
        improve()
    found = {}
    for number, case in enumerate(case for case in CASES if case.name in names):
        results = run(case, num_shards, impl, check_vma=number % 2 == 0)
        found |= {f"{case.name} {name}": value for name, value in results.items()}
        if case in ON_ROWS:
            of_rows = run(case, num_shards, impl, number % 2 == 0, on_rows=True)
            assert all(np.array_equal(of_rows[name], results[name]) for name in ("loss", "lse")), case
            found |= {f"{case.name} rows {name}": value for name, value in of_rows.items()}
    check_malformed(num_shards, impl)
    check_inputs(num_shards, impl)
    np.savez(path, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
