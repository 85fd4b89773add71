"""Every kernel mode once, tiny, for NVIDIA's checkers: ``compute-sanitizer --tool memcheck python -m
benchmarks.loss.sanitize``.

Also with ``--tool racecheck``. Words after the module's name select the cases that hold one of them. A run without the
checker compiles all kernels into Triton's cache. Without a GPU, ``TRITON_INTERPRET=1`` walks the float32 cases in
Triton's interpreter (its bfloat16 products are wrong). Sizes are ragged on purpose: hardly a number of rows or items or
a width is a multiple of a block.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# each tensor an allocation of its own, so that memcheck sees an access beyond its end
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import torch
from cce_minus.kernels import (
    AllItems,
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)
from cce_minus.kernels.negatives.base import Negatives
from cce_minus.kernels.negatives.samplers import Sampler
from cce_minus.torch_impl import (
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
)
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)

# name: (rows, items, width); few rows with many candidates are split over programs, forward and backward
CASES = {
    "grouped": (70, 500, 50),
    "grouped, rows in order": (70, 300, 64),
    "grouped, the first positions for all": (40, 131, 50),
    "grouped, split": (5, 700, 33),
    "independent": (30, 200, 50),
    "independent, strata": (30, 601, 50),
    "member": (70, 131, 50),
    "member, split": (3, 333, 33),
    "all": (70, 333, 50),
    "all, split": (3, 501, 33),
    "shared ids": (70, 333, 50),
    "shared ids, split": (3, 333, 33),
    "row ids": (30, 131, 50),
    "wide rows": (20, 131, 600),
    "wide rows, one popular target": (200, 131, 320),
    "one popular target": (200, 131, 33),
    "lists": (70, 150, 50),
    "lists of few items": (70, 9, 33),
    "lists, split, wide": (5, 301, 320),
    "binary": (70, 500, 50),
    "binary, independent": (30, 200, 50),
    "binary, split": (5, 700, 33),
    "in-batch": (70, 150, 50),
    "in-batch, whole batch": (70, 150, 50),
    "in-batch, one popular target": (200, 131, 33),
    "mixed": (70, 500, 50),
    "mixed, split, wide": (5, 301, 320),
    "mixed, both of slots": (70, 150, 50),
    "hard": (70, 500, 50),
    "hard, wide": (5, 301, 320),
    "hard of every item": (70, 131, 33),
    "row ids of known probabilities": (30, 131, 50),
    "scalable": (70, 300, 50),
    "scalable, mixed centres": (70, 300, 33),
    "scalable, large buckets, wide": (130, 301, 320),
    "scalable, blocks of items": (70, 33_000, 50),
    "scalable, tiles of blocks": (70, 132_001, 33),
}
# the same where rows have items that are no negatives
OF_HISTORY = (
    "grouped", "grouped, split", "independent", "independent, strata", "member", "all", "shared ids", "row ids",
    "lists", "binary",
    "binary, independent", "in-batch", "mixed", "hard", "row ids of known probabilities",
)  # fmt: skip
HISTORY = "history, "
CASES |= {HISTORY + name: CASES[name] for name in OF_HISTORY}

BUCKETS = {
    "scalable": {"n_buckets": 5, "bucket_size_x": 20, "bucket_size_y": 33},
    "scalable, mixed centres": {"n_buckets": 7, "bucket_size_x": 9, "bucket_size_y": 70, "mix_x": True},
    "scalable, large buckets, wide": {"n_buckets": 3, "bucket_size_x": 100, "bucket_size_y": 65},
    "scalable, blocks of items": {"n_buckets": 5, "bucket_size_x": 20, "bucket_size_y": 33},
    "scalable, tiles of blocks": {"n_buckets": 2, "bucket_size_x": 20, "bucket_size_y": 9},
}


def negatives_of(name: str, rows: int, items: int, generator: torch.Generator) -> Sampler | Tensor:
    """What the loss is given as negatives in a case."""
    device = generator.device
    samplers = {
        "grouped": UniformNegatives(130, 16),
        "grouped, rows in order": UniformNegatives(70, 32, shuffle_rows=False),
        "grouped, the first positions for all": UniformNegatives(100, 16),
        "grouped, split": UniformNegatives(400, 16),
        "independent": UniformNegatives(20, 1),
        "independent, strata": UniformNegatives(70, 1),
        "member": UniformNegatives(120, 1),
        "member, split": UniformNegatives(300, 1),
        "wide rows": UniformNegatives(50, 16),
        "wide rows, one popular target": UniformNegatives(40, 64),
        "one popular target": UniformNegatives(40, 64),
        "lists": PopularityNegatives(range(items), 130, group_size=16),
        "lists of few items": PopularityNegatives(range(items), 128, group_size=16),
        "lists, split, wide": LogUniformNegatives(400, 16),
        "binary": UniformNegatives(130, 16),
        "binary, independent": UniformNegatives(20, 1),
        "binary, split": UniformNegatives(400, 16),
        "in-batch": InBatchNegatives(16),
        "in-batch, whole batch": InBatchNegatives(None),
        "in-batch, one popular target": InBatchNegatives(64),
        "mixed": MixedNegatives(UniformNegatives(130, 16), InBatchNegatives(16)),
        "mixed, split, wide": MixedNegatives(LogUniformNegatives(400, 16), InBatchNegatives(16)),
        "mixed, both of slots": MixedNegatives(
            PopularityNegatives(range(items), 70, group_size=16), LogUniformNegatives(66, 16)
        ),
        "hard": HardNegatives(150, 70, 16),
        "hard, wide": HardNegatives(100, 33, 16),
        "hard of every item": HardNegatives(131, 20, 32),
    }
    if name in samplers:
        return samplers[name]
    if name.startswith("all"):
        return AllItems()
    shape = (rows, 12) if name.startswith("row ids") else (200,)
    ids = torch.randint(0, items, shape, generator=generator, device=device)
    ids[..., ::7] = -1  # empty slots
    return ids


def history_of(rows: int, items: int, device: torch.device) -> History:
    """Users with no item, with one and with every second one."""
    known = torch.cat([torch.tensor([items - 1]), torch.arange(0, items, 2)])
    offsets = torch.tensor([0, 0, 1, len(known)])
    return History(*(array.to(device) for array in (torch.arange(rows) % 3, offsets, known)))


def run_case(name: str, dtype: torch.dtype, device: str) -> Tensor:
    """One forward and backward with ignored rows, bias, lse and a learned scale; raises where a gradient is not
    finite."""
    rows, items, dim = CASES[name]
    generator = torch.Generator(device).manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype).requires_grad_()

    hidden, table, bias = leaf(rows, dim), leaf(items, dim), leaf(items)
    scale = torch.full((1,), 0.1, device=device, requires_grad=True)
    target = torch.randint(0, items, (rows,), generator=generator, device=device)
    target[::4] = -100
    if name.endswith("one popular target"):
        target[1:] = 7
    options: dict[str, Any] = {"linear_bias": bias, "logit_scale": scale, "softcap": 20.0, "seed": 3, "impl": "triton"}
    kind = name.removeprefix(HISTORY)
    if kind != name:
        options["history"] = history_of(rows, items, hidden.device)
    if kind in BUCKETS:
        loss = lse = scalable_linear_cross_entropy(hidden, table, target, **BUCKETS[kind], **options)
    elif kind.startswith("binary"):
        arguments = (hidden, table, target, negatives_of(kind, rows, items, generator))
        loss = lse = sampled_linear_binary_cross_entropy(*arguments, **options)
    else:
        arguments = (hidden, table, target, negatives_of(kind, rows, items, generator))
        if (isinstance(arguments[-1], Negatives) and arguments[-1].in_batch) or kind.endswith("known probabilities"):
            options["log_q"] = torch.randn(items, generator=generator, device=hidden.device).log_softmax(0)
        loss, lse = sampled_linear_cross_entropy(*arguments, return_lse=True, **options)
    leaves = (hidden, table, bias, scale)
    gradients = torch.autograd.grad(loss + lse.mean(), leaves)
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        raise ArithmeticError(f"{name}, {dtype}: a gradient is not finite")
    return loss.detach()


def main() -> None:
    on_gpu = torch.cuda.is_available()
    words = sys.argv[1:]
    names = [name for name in CASES if not words or any(word in name for word in words)]
    for name in names:
        for dtype in DTYPES if on_gpu else DTYPES[:1]:
            loss = run_case(name, dtype, "cuda" if on_gpu else "cpu")
            print(f"{name}, {dtype}: loss {float(loss):.4f}", flush=True)
    print(f"{len(names)} cases ran")


if __name__ == "__main__":
    main()
