"""Milliseconds and memory of ranking users among a catalog, beside a matrix product with ``topk``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from cce_minus.recsys import Ragged, SeenItems, seen_items
from cce_minus.torch_impl.serving import ranking as torch_ranking
from torch import Tensor

from .cases import Ranked

PLAIN = "plain"
PROVIDERS = ("torch", "jax", PLAIN)

_ROUNDS = 7
_ROUND_SECONDS = 0.1


class Inputs(NamedTuple):
    hidden: np.ndarray
    table: np.ndarray
    target: np.ndarray
    seen: SeenItems | None


class Call(NamedTuple):
    """A ranking that is ready to be called, how its results are waited for, and the MiB that it takes above the
    table."""

    call: Callable[[], Any]
    wait: Callable[[Any], None]
    mib: Callable[[], float | None]


def measure_rankings(provider: str, cases: tuple[Ranked, ...]) -> list[dict[str, object]]:
    """A row for each case: the median over rounds of calls that follow each other, on the host's clock."""
    rows: list[dict[str, object]] = []
    for case in cases:
        inputs = inputs_of(case)
        prepared = jax_call(case, inputs) if provider == "jax" else torch_call(case, inputs, plain=provider == PLAIN)
        prepared.wait(prepared.call())
        row: dict[str, object] = {"dataset": case.dataset, "method": case.method, "ms": milliseconds(prepared)}
        rows.append({**row, "mib": prepared.mib()})
    return rows


def inputs_of(case: Ranked) -> Inputs:
    """Normal states and items; the items that a user has seen are drawn uniformly."""
    rng = np.random.default_rng(0)
    hidden, table = (rng.standard_normal((rows, case.dim), np.float32) for rows in (case.users, case.items))
    target = rng.integers(0, case.items, case.users, dtype=np.int32)
    if not case.seen:
        return Inputs(hidden, table, target, None)
    history = Ragged.from_rows(list(rng.integers(0, case.items, (case.users, case.seen), dtype=np.int32)))
    return Inputs(hidden, table, target, seen_items(history, np.arange(case.users), target))


def torch_call(case: Ranked, inputs: Inputs, *, plain: bool) -> Call:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hidden, table, target = (torch.from_numpy(array).to(device) for array in inputs[:3])
    seen = torch_ranking.Seen.of(inputs.seen, case.users, device)
    if plain and inputs.seen is not None and seen is not None:  # without what fills up
        row, item = (torch.from_numpy(ids).to(device) for ids in (inputs.seen.row, inputs.seen.item))
        seen = seen._replace(row=row, item=item)

    def call() -> tuple[Tensor, Tensor]:
        if plain:
            return plain_ranking(hidden, table, target, case.k, seen)
        return torch_ranking.rank_and_top(hidden, table, target, case.k, None, seen)

    def wait(_: object) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def mib() -> float | None:
        if device.type != "cuda":
            return None
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - held) / 2**20

    return Call(call, wait, mib)


def plain_ranking(
    hidden: Tensor, table: Tensor, target: Tensor, k: int, seen: torch_ranking.Seen | None
) -> tuple[Tensor, Tensor]:
    """Ranks and best items as one writes them: all scores at once, ties as ``topk`` likes."""
    scores = hidden @ table.T
    own = scores.gather(1, target.long()[:, None])
    if seen is not None:
        scores[seen.row.long(), seen.item.long()] = -torch.inf
    return 1 + (scores > own).sum(1), scores.topk(k, dim=1).indices


def jax_call(case: Ranked, inputs: Inputs) -> Call:
    import jax
    from cce_minus.jax_impl.serving.ranking import Seen, rank_and_top

    hidden, table, target = (jax.device_put(array) for array in inputs[:3])
    seen = jax.device_put(Seen.of(inputs.seen, case.users))

    def mib() -> float | None:
        planned = rank_and_top.lower(hidden, table, target, case.k, None, seen).compile().memory_analysis()
        return None if planned is None else (planned.temp_size_in_bytes + planned.output_size_in_bytes) / 2**20

    return Call(lambda: rank_and_top(hidden, table, target, case.k, None, seen), jax.block_until_ready, mib)


def milliseconds(prepared: Call) -> float:
    """The median over rounds of the mean time of calls that follow each other."""

    def round_of(calls: int) -> float:
        began = time.perf_counter()
        result = None
        for _ in range(calls):
            result = prepared.call()
        prepared.wait(result)
        return time.perf_counter() - began

    calls = max(1, round(_ROUND_SECONDS / round_of(1)))
    return statistics.median(round_of(calls) / calls for _ in range(_ROUNDS)) * 1000
