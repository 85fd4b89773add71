"""Lists that groups draw: one implementation for every array library, targets of rows, the hardest of a pool, malformed
samplers."""

from __future__ import annotations

from typing import Any

import cce_minus.jax_impl.loss.candidates as jax_candidates
import cce_minus.jax_impl.loss.list_operands as jax_list_operands
import cce_minus.jax_impl.loss.ops as jax_ops
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus import kernels
from cce_minus.jax_impl.loss.operands import Operands as JaxOperands
from cce_minus.kernels import (
    AllItems,
    ArgumentError,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.negatives.base import Negatives
from cce_minus.kernels.negatives.drawn_ids import drawn_lists
from cce_minus.kernels.negatives.samplers import SAMPLERS
from cce_minus.kernels.plan.problem import Choices
from cce_minus.torch_impl.loss import candidates, list_operands, ops
from cce_minus.torch_impl.loss.operands import Operands, Options
from scipy import stats

from tests.cases import cases
from tests.inputs import make_inputs
from tests.loss.samplers import negatives_of

N, V, GROUP, SEED = 75, 77, 16, 2**40 + 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WORDS = np.array([3, 2**8], np.int32)  # low, high
TARGET = np.random.default_rng(0).integers(0, V, N).astype(np.int32)
COUNTS = np.arange(1, V + 1) ** 2
GROUPED: dict[str, Any] = {"group_size": GROUP, "shuffle_rows": False}
DRAWN = {
    "one stratum": PopularityNegatives(COUNTS, 9, **GROUPED),
    "two strata": PopularityNegatives(COUNTS, 130, **GROUPED),
    "uniform and log-uniform": MixedNegatives(UniformNegatives(70, **GROUPED), LogUniformNegatives(64, **GROUPED)),
    "popularity and every item": MixedNegatives(
        PopularityNegatives(COUNTS, 20, **GROUPED), UniformNegatives(100, **GROUPED)
    ),
}


def torch_lists(sampler: Any, impl: str) -> np.ndarray:
    """The lists (groups, K) of a call by the kernels or by plain torch."""
    words = torch.from_numpy(WORDS).to(DEVICE)
    ends, log_weight = list_operands.list_operands(sampler, sampler.draw(V), V, words, None)
    hidden, table = torch.zeros(N, 16, device=DEVICE), torch.zeros(V, 16, device=DEVICE)
    one = torch.ones(1, device=DEVICE)
    x = Operands(hidden, table, torch.from_numpy(TARGET).to(DEVICE), words, one, log_weight=log_weight, slot_ends=ends)
    correction = "uniform" if log_weight is None else "weighted"
    options = Options(sampler.text, 0, 1, impl, None, True, -100, False, None, correction, False)
    p = ops._problem(x, options)
    if impl == "triton":
        tables = ops.forward(*x, *options)[-1]
        return ops._table(tables, "lists", p, p.num_groups, p.negatives).cpu().numpy()
    return torch.cat([chunk.ids for chunk in candidates.chunks(x, p, lambda chunk: chunk.ids)]).cpu().numpy()


def jax_lists(sampler: Any) -> np.ndarray:
    slot_ends = jax_list_operands.sampler_tables(sampler, V, None).slot_ends
    one = jnp.ones(1)
    x = JaxOperands(
        jnp.zeros((N, 16)),
        jnp.zeros((V, 16)),
        None,
        one,
        jnp.asarray(TARGET),
        None,
        jnp.asarray(WORDS),
        slot_ends=slot_ends,
    )
    choices = Choices(None, True, -100, False, None, "none", False)
    p = jax_ops._problem(x, jax_ops.Options(sampler.draw(V), choices, "reference"))
    return np.asarray(jax_candidates.layout_of(x, p).ids(jnp.arange(p.num_groups)))


@pytest.mark.parametrize("name", DRAWN)
def test_lists_are_the_same_in_every_library(name: str):
    sampler = DRAWN[name]
    want = negative_ids(sampler, num_rows=N, num_items=V, seed=SEED)[::GROUP]
    for impl in ("reference", "triton"):
        np.testing.assert_array_equal(torch_lists(sampler, impl), want)
    np.testing.assert_array_equal(jax_lists(sampler), want)


def test_in_batch_lists_hold_the_groups_targets():
    want = np.pad(TARGET, (0, -N % GROUP), constant_values=-1).reshape(-1, GROUP)
    sampler = InBatchNegatives(**GROUPED)
    for impl in ("reference", "triton"):
        np.testing.assert_array_equal(torch_lists(sampler, impl), want)
    np.testing.assert_array_equal(jax_lists(sampler), want)


def test_a_pool_is_uniform_and_without_replacement():
    """Frequencies of items in pools over sequential seeds, and of pairs of neighbouring places."""
    lists = HardNegatives(10, 3, 16).draw(23).lists
    assert lists is not None
    assert (lists.columns, lists.negatives) == (10, 3)
    seeds = [(pm.NUMPY.u32(0), pm.NUMPY.u32(seed)) for seed in range(2000)]
    pools = np.concatenate([drawn_lists(lists, pm.NUMPY, seed, np.arange(4), None) for seed in seeds])
    assert (np.diff(np.sort(pools, 1)) > 0).all()
    counts = np.bincount(pools.ravel(), minlength=23)
    # 10 of 23 without replacement: an item's count varies 13 / 22 times as much as independent draws' would
    p = stats.chi2.sf(((counts - counts.mean()) ** 2).sum() / counts.mean() * 22 / 13, 22)
    assert 1e-4 < p < 1 - 1e-4
    pairs = np.bincount(pools[:, 0] * 23 + pools[:, 1], minlength=23 * 23).reshape(23, 23)
    off_diagonal = pairs[~np.eye(23, dtype=bool)]
    assert stats.chisquare(off_diagonal).pvalue > 1e-4


def test_parts_of_a_mixture_draw_apart():
    """Two uniform parts of one mixture meet as often as chance has it."""
    ids = negative_ids(
        MixedNegatives(UniformNegatives(50, 16), UniformNegatives(50, 16)), num_rows=16 * 400, num_items=5000, seed=1
    )[::16]
    common = np.array([len(np.intersect1d(row[:50], row[50:])) for row in ids])
    assert abs(common.mean() - 0.5) < 4 * (0.5 / 400) ** 0.5


def test_every_sampler_is_listed_and_has_a_case():
    public = {each for each in vars(kernels).values() if isinstance(each, type) and issubclass(each, Negatives)}
    assert public == set(SAMPLERS)
    of_cases = (negatives_of(case, make_inputs(case)) for case in cases())
    assert {type(negatives) for negatives in of_cases} - {np.ndarray} == set(SAMPLERS)


def test_a_capture_takes_no_tables_from_the_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    device = torch.device("cuda", 0)
    with pytest.raises(ArgumentError, match="used before the CUDA graph's capture"):
        list_operands._tables_of.__wrapped__(LogUniformNegatives(8, GROUP), V, device)  # type: ignore[attr-defined]
    mixed = MixedNegatives(UniformNegatives(8, GROUP), InBatchNegatives(GROUP))
    _, log_weight = list_operands._tables_of(mixed, V, torch.device("cpu"))
    assert log_weight == pytest.approx(-np.log(8 / (8 + GROUP - 1))), "of all items: a number, filled in on the device"


BAD = [
    (lambda: InBatchNegatives(1), "group_size"),
    (lambda: InBatchNegatives(24), "group_size"),
    (lambda: InBatchNegatives(shuffle_rows=None), "shuffle_rows"),  # type: ignore[arg-type]
    (lambda: InBatchNegatives(None, shuffle_rows=0), "shuffle_rows"),  # type: ignore[arg-type]
    (lambda: InBatchNegatives(None, shuffle_rows=False), "shuffle_rows"),
    (lambda: MixedNegatives(AllItems(), InBatchNegatives()), "first"),  # type: ignore[arg-type]
    (lambda: MixedNegatives(UniformNegatives(5), HardNegatives(5, 2)), "second"),  # type: ignore[arg-type]
    (lambda: MixedNegatives(UniformNegatives(5), np.arange(4)), "second"),  # type: ignore[arg-type]
    (lambda: MixedNegatives(UniformNegatives(5, 1), InBatchNegatives()), "first"),
    (lambda: MixedNegatives(UniformNegatives(5), InBatchNegatives(None)), "second"),
    (lambda: MixedNegatives(UniformNegatives(5), InBatchNegatives(64)), "second"),
    (lambda: MixedNegatives(UniformNegatives(5), InBatchNegatives(shuffle_rows=False)), "second"),
    (lambda: MixedNegatives(InBatchNegatives(), InBatchNegatives()), "second"),
    (lambda: HardNegatives(0, 1), "pool"),
    (lambda: HardNegatives(10, 0), "num_negatives"),
    (lambda: HardNegatives(10, 11), "num_negatives"),
    (lambda: HardNegatives(2.0, 1), "pool"),  # type: ignore[arg-type]
    (lambda: HardNegatives(10, 2, group_size=1), "group_size"),
    (lambda: negative_ids(InBatchNegatives(), num_rows=5, num_items=9, seed=0), "sampler"),
    (lambda: negative_ids(HardNegatives(5, 2), num_rows=5, num_items=9, seed=0), "sampler"),
    (
        lambda: negative_ids(MixedNegatives(UniformNegatives(5), InBatchNegatives()), num_rows=5, num_items=9, seed=0),
        "sampler",
    ),
]


@pytest.mark.parametrize(("make", "argument"), BAD)
def test_malformed_samplers_name_the_argument(make: Any, argument: str):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.argument == argument
