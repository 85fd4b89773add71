"""Run as one of several processes: every sharded case through the PyTorch API on this rank's rows and items."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from cce_minus.kernels import History
from cce_minus.torch_impl import CatalogShard, linear_cross_entropy, sampled_linear_cross_entropy
from torch import Tensor

from tests.inputs import Case, make_inputs
from tests.loss.expected import options, softmax_options
from tests.loss.samplers import SEED, negatives_of
from tests.loss.shard_cases import CASES, max_rows, rows_of, shard_history


def run(case: Case, catalog: CatalogShard, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """This rank's losses and gradients, by name."""
    inputs, shard = make_inputs(case), catalog.shard
    rows = rows_of(case, shard.num_shards)[shard.index]
    items = slice(shard.index, None, shard.num_shards)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    leaves = {"hidden": tensor(inputs.hidden[rows]).to(dtype), "table": tensor(inputs.table[items]).to(dtype)}
    leaves["scale"] = torch.tensor(case.logit_scale, device=device)
    if inputs.bias is not None:
        leaves["bias"] = tensor(inputs.bias[items])
    if inputs.sample_weight is not None:
        leaves["weight"] = tensor(inputs.sample_weight[rows])
    for leaf in leaves.values():
        leaf.requires_grad_()
    keywords = options(case) | softmax_options(case) | {
        "linear_bias": leaves.get("bias"), "sample_weight": leaves.get("weight"), "logit_scale": leaves["scale"],
        "catalog": catalog,
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
        loss, lse = sampled_linear_cross_entropy(
            *arguments, negatives_of(case, inputs), log_q=log_q, seed=SEED, **keywords
        )
    u, v = tensor(inputs.grad_loss[rows]), tensor(inputs.grad_lse[rows])
    ((torch.nan_to_num(u) * loss).sum() if case.reduction == "none" else loss).add(
        (v.nan_to_num() * lse).sum()
    ).backward()
    results = {"loss": loss, "lse": lse} | {f"d{name}": leaf.grad for name, leaf in leaves.items()}
    return {name: value.detach().float().cpu().numpy() for name, value in results.items()}


def main(folder: str, rank: int, num_ranks: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num_ranks)
    found = {}
    for case in CASES:
        catalog = CatalogShard(case.num_items, max_rows=max_rows(case, num_ranks))
        first, second = run(case, catalog), run(case, catalog)
        for name, value in first.items():
            assert np.array_equal(value, second[name], equal_nan=True), (case, name)
            found[f"{case.name} {name}"] = value
    np.savez(Path(folder) / f"{rank}.npz", **found)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
