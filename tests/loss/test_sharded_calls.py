"""Calls on a sharded catalog: one rank's is the plain one, draws are ``negative_ids``, and what raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from cce_minus.kernels import (
    AllItems,
    ArgumentTypeError,
    ArgumentValueError,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    fold_seed,
    negative_ids,
    shard_user_items,
)
from cce_minus.kernels.draws.shard import Shard
from cce_minus.torch_impl import CatalogShard, input_rows, sampled_linear_cross_entropy, working_set
from cce_minus.torch_impl.loss.seeds import folded_seed, signed
from torch.testing._internal.distributed.fake_pg import FakeStore

ITEMS, ROWS, DIM = 23, 20, 8
COUNTS = np.arange(ITEMS)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def four_ranks() -> Iterator[None]:
    """Rank 2 of four, whose collectives reach nobody."""
    dist.init_process_group("fake", store=FakeStore(), rank=2, world_size=4)
    yield
    dist.destroy_process_group()


def call(negatives: Any, table_rows: int = ITEMS, **keywords: Any) -> tuple[torch.Tensor, ...]:
    """Loss, lse and gradients of a call with random inputs."""
    generator = torch.Generator().manual_seed(0)
    hidden, table, bias = (
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((ROWS, DIM), (table_rows, DIM), (table_rows,))
    )
    target = torch.randint(ITEMS, (ROWS,), generator=generator)
    target[3] = -100
    options: dict[str, Any] = {"seed": 7} | keywords
    loss, lse = sampled_linear_cross_entropy(
        hidden, table, target, negatives, linear_bias=bias, return_lse=True, **options
    )
    (loss + lse.sum()).backward()
    return loss.detach(), lse.detach(), *(leaf.grad for leaf in (hidden, table, bias))  # type: ignore[misc]


@pytest.mark.parametrize("negatives", [AllItems(), UniformNegatives(10, 16), LogUniformNegatives(9, 16)])
def test_one_rank_is_the_plain_call(one_rank: None, negatives: Any):
    for one, plain in zip(call(negatives, catalog=CatalogShard(ITEMS)), call(negatives), strict=True):
        assert torch.equal(one, plain)


SAMPLERS = (
    AllItems(), UniformNegatives(10, 16), UniformNegatives(10, 1), UniformNegatives(30, 16), UniformNegatives(30, 1),
    LogUniformNegatives(9, 16), PopularityNegatives(COUNTS + 1, 9, group_size=16),
    MixedNegatives(UniformNegatives(10, 16), LogUniformNegatives(5, 16)),
)  # fmt: skip


def test_what_one_rank_s_inputs_embed_are_rows_of_the_table(one_rank: None):
    catalog, table = CatalogShard(300), torch.randn(300, DIM, generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor([[4, -1, 299], [0, 4, -1]])
    own = working_set(UniformNegatives(8, 16), torch.arange(3), num_items=300, seed=1, inputs=inputs, catalog=catalog)
    rows = table[own.ids.long()].requires_grad_()
    embedded = input_rows(rows, own, catalog=catalog)
    assert torch.equal(embedded, torch.where(inputs[..., None] >= 0, table[inputs], 0.0))
    assert input_rows(rows, own, catalog=catalog, dtype=torch.bfloat16).dtype == torch.bfloat16
    embedded.sum().backward()
    assert rows.grad is not None
    assert rows.grad.sum() == 4 * DIM
    without = working_set(UniformNegatives(8, 16), torch.arange(3), num_items=300, seed=1, catalog=catalog)
    with pytest.raises(ArgumentValueError, match=r"^working_set: expected one with inputs, .* got one without"):
        input_rows(rows, without, catalog=catalog)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.text[:40])
def test_shards_draw_their_shares_of_their_own_items(sampler: Any):
    num_rows, shards = 40, 4
    together = negative_ids(sampler, num_rows=num_rows, num_items=ITEMS, seed=5, num_shards=shards)
    first = 0
    for index in range(shards):
        shard = Shard(ITEMS, shards, index)
        assert shard.size == len(COUNTS[index::shards])
        seed = fold_seed(5, index)
        own = negative_ids(sampler.of_shard(shard), num_rows=num_rows, num_items=shard.size, seed=seed)
        np.testing.assert_array_equal(together[:, first : first + own.shape[1]], COUNTS[index::shards][own])
        first += own.shape[1]
    assert first == together.shape[1]
    one = negative_ids(sampler, num_rows=num_rows, num_items=ITEMS, seed=5, num_shards=1)
    np.testing.assert_array_equal(one, negative_ids(sampler, num_rows=num_rows, num_items=ITEMS, seed=5))


def test_shares_add_up():
    shares = [UniformNegatives(10).of_shard(Shard(ITEMS, 4, index)).num_negatives for index in range(4)]
    assert shares == [3, 3, 2, 2]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_histories_of_shards(number: int):
    offsets, items = np.array([0, 0, 3, 7]), np.array([1, 5, 6, 0, 2, 3, 22])
    for shard in range(number):
        own_offsets, own = shard_user_items(offsets, items, num_shards=number, shard=shard)
        for user in range(3):
            known = [item for item in items[offsets[user] : offsets[user + 1]] if item % number == shard]
            np.testing.assert_array_equal(own[own_offsets[user] : own_offsets[user + 1]] * number + shard, known)


@pytest.mark.parametrize("seed", [5, -(2**63), 2**64 - 3])
def test_a_seed_folded_on_the_device(seed: int):
    given = torch.tensor([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF])
    for index in (0, 3, 2**31):
        for each in (seed, given):
            assert folded_seed(each, index, torch.zeros(1)).tolist() == [signed(fold_seed(seed, index))]


def test_errors(four_ranks: None):
    """Before anything is sent, so that other ranks, whose calls are alike, raise too."""
    catalog, own = CatalogShard(ITEMS, max_rows=32), len(range(2, ITEMS, 4))
    given: dict[str, Any] = {"table_rows": own, "catalog": catalog}
    generic: Any = "catalog"
    ids = torch.zeros(3, dtype=torch.int64)
    for negatives, keywords, error, message in (
        (AllItems(), {"catalog": generic}, ArgumentTypeError, "^catalog: expected a CatalogShard or None, got str"),
        (AllItems(), {"table_rows": ITEMS}, ArgumentValueError, "^linear_weight: .* 6 of 23 items that shard 2 of 4"),
        (ids, {"seed": None}, ArgumentTypeError, "^negatives: expected a sampler or a working .* got Tensor"),
        (HardNegatives(9, 4, 16), {}, ArgumentTypeError, "^negatives: .* shards of a catalog can share, got HardNeg"),
        (UniformNegatives(3, 16), {}, ArgumentValueError, "^negatives: expected num_negatives of 4 or more.* got 3"),
        (InBatchNegatives(16), {}, ArgumentTypeError, "^log_q: "),
        (AllItems(), {"catalog": CatalogShard(ITEMS, max_rows=19)}, ArgumentValueError, "^input: .* max_rows = 19"),
        (PopularityNegatives(1 * (COUNTS < 2), 9, group_size=16), {}, ArgumentValueError, "^negatives: .* in shard 2"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call(negatives, **(given | keywords))
    target = torch.arange(ROWS)
    rows = working_set(UniformNegatives(4, 16), target, num_items=ITEMS, seed=1)
    with pytest.raises(ArgumentValueError, match=r"^negatives: expected a working set that was made with the catalog"):
        sampled_linear_cross_entropy(
            torch.zeros(ROWS, DIM), torch.zeros(own, DIM), rows.target, rows, catalog=catalog, ignore_index=-100
        )


def test_a_catalog_of_a_rank(four_ranks: None):
    for keywords, error, message in (
        ({"num_items": 3}, ArgumentValueError, "^num_items: .* each of 4 ranks, got 3"),
        ({"num_items": 3.5}, ArgumentTypeError, "^num_items: "),
        ({"num_items": 9, "max_rows": -1}, ArgumentValueError, "^max_rows: "),
        ({"num_items": 9, "group": "data"}, ArgumentTypeError, "^group: .* got str"),
    ):
        arguments: dict[str, Any] = keywords
        with pytest.raises(error, match=message):
            CatalogShard(**arguments)
    assert CatalogShard(23).shard == Shard(23, 4, 2)


def test_without_a_process_group():
    with pytest.raises(ArgumentValueError, match=r"^group: expected a process group"):
        CatalogShard(23)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_shards": 0}, "^num_shards: expected an int in \\[1, 23\\]"),
        ({"num_shards": 24}, "^num_shards: "),
        ({"num_shards": 2, "sampler": HardNegatives(9, 4, 16)}, "^sampler: "),
    ],
)
def test_errors_of_negative_ids(arguments: dict[str, Any], message: str):
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        negative_ids(**({"sampler": AllItems(), "num_rows": 3, "num_items": ITEMS, "seed": 1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_shards": 0}, "^num_shards: "),
        ({"shard": 2}, "^shard: expected an int in \\[0, 2\\)"),
        ({"items": np.zeros(7)}, "^items: "),
        ({"offsets": np.array([0, 3])}, "^offsets: "),
    ],
)
def test_errors_of_shard_user_items(arguments: dict[str, Any], message: str):
    given = {"offsets": np.array([0, 7]), "items": np.arange(7), "num_shards": 2, "shard": 0} | arguments
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        shard_user_items(**given)
