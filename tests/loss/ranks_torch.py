"""Run as one of several processes: every sharded case through the PyTorch API on this rank's rows and items."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cce_minus.kernels import ArgumentTypeError, ArgumentValueError, History
from cce_minus.torch_impl import (
    CatalogShard,
    ItemTable,
    RowWiseAdagrad,
    SampledLinearCrossEntropyLoss,
    UniformNegatives,
    input_rows,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
    working_set,
)
from torch import Tensor

from tests.inputs import Case, make_inputs
from tests.interpreter import improve
from tests.loss.expected import options, softmax_options
from tests.loss.samplers import SEED, negatives_of
from tests.loss.shard_cases import CASES, HALVES, INTERPRETED, ON_ROWS, REPEATED, max_rows, rows_of, shard_history


def run(
    case: Case, catalog: CatalogShard, impl: str, device: str, dtype: torch.dtype = torch.float32, on_rows: bool = False
) -> dict[str, Any]:
    """This rank's losses and gradients, by name; ``on_rows`` of a working set."""
    inputs, shard = make_inputs(case, dtype=dtype), catalog.shard
    rows = rows_of(case, shard.num_shards)[shard.index]
    items = slice(shard.index, None, shard.num_shards)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    leaves = {"hidden": tensor(inputs.hidden[rows]).to(dtype), "table": tensor(inputs.table[items]).to(dtype)}
    leaves["scale"] = torch.tensor(case.logit_scale, device=device)
    if inputs.bias is not None:
        leaves["bias"] = tensor(inputs.bias[items]).to(dtype)
    if inputs.sample_weight is not None:
        leaves["weight"] = tensor(inputs.sample_weight[rows])
    for leaf in leaves.values():
        leaf.requires_grad_()
    keywords = options(case) | softmax_options(case) | {
        "linear_bias": leaves.get("bias"), "sample_weight": leaves.get("weight"), "logit_scale": leaves["scale"],
        "catalog": catalog, "impl": impl,
    }  # fmt: skip
    own_history = shard_history(inputs, shard)
    if own_history is not None and inputs.history is not None:
        keywords["history"] = History(tensor(inputs.history[0][rows]), *map(tensor, own_history))
    arguments = leaves["hidden"], leaves["table"], tensor(inputs.target[rows])
    if case.mode == "all" and case.remove_accidental_hits:
        del keywords["remove_accidental_hits"], keywords["logq_correction"]
        loss, lse = linear_cross_entropy(*arguments, **keywords)
    else:
        log_q = None if inputs.log_q is None else tensor(inputs.log_q[items])
        negatives: Any = negatives_of(case, inputs)
        draw = {"log_q": log_q, "seed": SEED, "history": keywords.pop("history", None)}
        if on_rows:
            negatives = working_set(
                negatives, arguments[2], num_items=case.num_items, ignore_index=case.ignore_index, catalog=catalog,
                impl=impl, **draw,
            )  # fmt: skip
            assert negatives.count <= len(negatives.ids) <= catalog.shard.size
            places, draw = negatives.ids.long(), {}
            arguments = arguments[0], arguments[1][places], negatives.target
            if "bias" in leaves:
                keywords["linear_bias"] = leaves["bias"][places]
        loss, lse = sampled_linear_cross_entropy(*arguments, negatives, **draw, **keywords)
    u, v = tensor(inputs.grad_loss[rows]), tensor(inputs.grad_lse[rows])
    ((torch.nan_to_num(u) * loss).sum() if case.reduction == "none" else loss).add(
        (v.nan_to_num() * lse).sum()
    ).backward()
    results: dict[str, Any] = {"loss": loss, "lse": lse} | {f"d{name}": leaf.grad for name, leaf in leaves.items()}
    return {name: value.detach().float().cpu().numpy() for name, value in results.items()}


def check_errors(rank: int) -> None:
    """What is wrong on one rank raises on all of them, where the host may read it."""
    table = torch.zeros(CatalogShard(50).shard.size, 8)
    for num_rows, target, message in (
        (3, 50 if rank == 1 else 0, "^target: .*got 50"),
        (3 + rank, 0, "^input: .*equally"),
    ):
        with pytest.raises(ArgumentValueError, match=message):
            linear_cross_entropy(
                torch.zeros(num_rows, 8), table, torch.full((num_rows,), target), catalog=CatalogShard(50)
            )


def check_modes() -> None:
    """Compiled code and modules give the same bits; what is not differentiable says so."""
    catalog = CatalogShard(50)
    generator = torch.Generator().manual_seed(catalog.shard.index)
    hidden = torch.randn(32, 8, generator=generator, requires_grad=True)
    table = torch.randn(catalog.shard.size, 8, generator=generator, requires_grad=True)
    target, negatives = torch.randint(50, (32,), generator=generator), UniformNegatives(20, 16)

    def loss(hidden: Tensor, table: Tensor, seed: Tensor) -> Tensor:
        return sampled_linear_cross_entropy(hidden, table, target, negatives, seed=seed, catalog=catalog)

    def gradients(function: Any) -> list[Tensor]:
        value = function(hidden, table, torch.tensor([5]))
        return [value, *torch.autograd.grad(value, (hidden, table))]

    nothing = torch.zeros(0, 8, requires_grad=True)
    for most in (None, 0, 5):
        empty = CatalogShard(50, max_rows=most)
        value = sampled_linear_cross_entropy(nothing, table, target[:0], negatives, seed=1, catalog=empty)
        assert not value
        assert not any(gradient.any() for gradient in torch.autograd.grad(value, (nothing, table)))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    module = SampledLinearCrossEntropyLoss(negatives, seed=5)
    of_module = gradients(lambda hidden, table, _: module(hidden, table, target, catalog=catalog))
    for plain, *others in zip(gradients(loss), gradients(compiled), of_module, strict=True):
        assert all(torch.equal(plain, other) for other in others)
    (gradient,) = torch.autograd.grad(loss(hidden, table, torch.tensor([5])), hidden, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        gradient.sum().backward()
    with pytest.raises(ArgumentTypeError, match=r"^catalog: .* torch\.func"):
        torch.func.grad(loss)(hidden, table, torch.tensor([5]))


def check_inputs(rank: int, num_ranks: int) -> None:
    """What inputs embed is the whole table's rows, and the gradient of a rank's rows what all ranks' inputs give."""
    catalog, generator = CatalogShard(301), torch.Generator().manual_seed(0)
    whole = torch.randn(301, 4, generator=generator)
    inputs = torch.randint(-1, 301, (num_ranks, 5, 3), generator=generator)
    weight = torch.randn(num_ranks, 5, 3, 4, generator=generator)
    table = whole[rank::num_ranks].clone().requires_grad_()
    own = working_set(
        UniformNegatives(8, 16), torch.arange(5), num_items=301, seed=1, inputs=inputs[rank], catalog=catalog
    )
    embedded = input_rows(table[own.ids.long()], own, catalog=catalog)
    known = (inputs >= 0)[..., None]
    assert torch.equal(embedded, torch.where(known[rank], whole[inputs[rank].clamp(min=0)], 0.0))
    halves = input_rows(table[own.ids.long()], own, catalog=catalog, dtype=torch.bfloat16)
    assert torch.equal(halves, embedded.bfloat16())
    (embedded * weight[rank]).sum().backward()
    want = torch.zeros_like(whole).index_add_(0, inputs.clamp(min=0).flatten(), (weight * known).flatten(0, 2))
    torch.testing.assert_close(table.grad, want[rank::num_ranks])
    items = ItemTable.of(torch.nn.Parameter(whole[rank::num_ranks].clone()))
    rows, optimizer = items(own), RowWiseAdagrad([items], lr=0.1)
    hidden = input_rows(rows, own, catalog=catalog).sum(1)
    sampled_linear_cross_entropy(hidden, rows, own.target, own, catalog=catalog).backward()
    optimizer.step()
    moved = (items.weight.detach() != whole[rank::num_ranks]).any(1)
    assert torch.equal(moved.nonzero()[:, 0].int(), own.ids[: int(own.count)])
    for error, message, call in (
        (ArgumentValueError, "^rows: expected shape", lambda: input_rows(table[:1], own, catalog=catalog)),
        (ArgumentTypeError, "^dtype: ", lambda: input_rows(rows, own, catalog=catalog, dtype=torch.int32)),
        (ArgumentValueError, "^num_items: ", lambda: working_set(
            UniformNegatives(8, 16), torch.arange(5), num_items=300, seed=1, catalog=catalog)),
        (ArgumentValueError, "^negatives: expected a working set that was made with", lambda:
            sampled_linear_cross_entropy(torch.zeros(5, 4), table, torch.arange(5), working_set(
                UniformNegatives(8, 16), torch.arange(5), num_items=301, seed=1), catalog=catalog)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def main(folder: str, rank: int, num_ranks: int, impl: str, device: str) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    elif impl == "triton":
        improve()
    backend = "nccl" if device == "cuda" else "gloo"
    store = f"file://{folder}/store"
    dist.init_process_group(backend, store, timedelta(seconds=100), rank=rank, world_size=num_ranks)
    found = {}
    for case in CASES if impl == "reference" or device == "cuda" else INTERPRETED:
        catalog = CatalogShard(case.num_items, max_rows=max_rows(case, num_ranks))
        for name, value in run(case, catalog, impl, device).items():
            found[f"{case.name} {name}"] = value
        if case in ON_ROWS:
            for name, value in run(case, catalog, impl, device, on_rows=True).items():
                if name in ("loss", "lse"):
                    assert np.array_equal(value, found[f"{case.name} {name}"]), (case, name)
                found[f"{case.name} rows {name}"] = value
        if case in HALVES and impl == "reference":
            for name, value in run(case, catalog, impl, device, torch.bfloat16).items():
                found[f"{case.name} bfloat16 {name}"] = value
        if case in REPEATED:
            for name, value in run(case, catalog, impl, device).items():
                assert np.array_equal(value, found[f"{case.name} {name}"], equal_nan=True), (case, name)
    if device == "cpu" and impl == "reference":
        check_errors(rank)
        check_modes()
        check_inputs(rank, num_ranks)
    np.savez(Path(folder) / f"{rank}.npz", **found)  # type: ignore[arg-type]
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
