"""Ranks of targets and best items by kernels: the definition's on exact scores, in both frameworks."""

from __future__ import annotations

from typing import NamedTuple

import cce_minus.jax_impl.serving.ranking as jax_ranking
import cce_minus.torch_impl.serving.ranking as torch_ranking
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels.plan import nearest, ranking
from cce_minus.kernels.plan.ranking import Ranking, plan_ranking
from cce_minus.recsys import Ragged, SeenItems, seen_items, target_ranks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Sizes(NamedTuple):
    users: int
    items: int
    dim: int
    k: int


# every score kept; blocks; blocks of more columns than one chunk, and users of more than a tile; sections
CASES = {
    "all": Sizes(5, 150, 7, 10),
    "blocks": Sizes(9, 1031, 20, 5),
    "wide": Sizes(70, 700, 150, 3),
    "sections": Sizes(3, 2050, 16, 9),
    "one": Sizes(2, 333, 16, 1),
    "ranks": Sizes(4, 333, 16, 0),
}


@pytest.fixture(params=CASES)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """A case, with limits that lead to its way of ranking."""
    if request.param == "sections":
        monkeypatch.setattr(nearest, "MOST_SELECTED_FROM", 64)
    sizes = CASES[request.param]
    (plan,) = plans_of(sizes, True, 0)
    assert plan.has_blocks == (request.param != "all")
    assert (max(map(nearest.sections, plan.selections), default=1) > 1) == (request.param == "sections")
    return sizes


def plans_of(sizes: Sizes, has_targets: bool, most_seen: int, *, has_candidates: bool = False) -> tuple[Ranking, ...]:
    plans = plan_ranking(sizes.users, sizes.items, sizes.dim, sizes.k, has_targets, most_seen, has_candidates)
    assert plans is not None
    return plans


def arrays(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray, SeenItems]:
    """Small integers: scores are exact and most are tied. One user scores everything 0, one target -0, one has seen
    nothing, one some items twice, and the last of a small catalog all but two."""
    rng = np.random.default_rng(sizes.items)
    hidden = rng.integers(-2, 3, (sizes.users, sizes.dim)).astype(np.float32)
    table = rng.integers(-2, 3, (sizes.items, sizes.dim)).astype(np.float32)
    hidden[1] = 0
    target = rng.integers(0, sizes.items, sizes.users).astype(np.int32)
    rows = [rng.integers(0, sizes.items, rng.integers(1, 40)) for _ in range(sizes.users)]
    rows[0], rows[1] = np.repeat(rows[0], 2), rows[1][:0]
    if sizes.items < 200:
        rows[-1] = rng.permutation(sizes.items)[2:]
    return hidden, table, target, seen_items(Ragged.from_rows(rows), np.arange(sizes.users), target)


def definition(
    hidden: np.ndarray,
    table: np.ndarray,
    target: np.ndarray,
    k: int,
    seen: SeenItems | None,
    candidates: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    scores = hidden @ table.T
    scores = np.where(np.isnan(scores), -3.4e38, scores)  # last among the best
    own = scores[np.arange(len(target)), target][:, None]
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    if seen is not None:
        scores[seen.row, seen.item] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top = np.where(np.take_along_axis(scores, top, 1) == -np.inf, -1, top)
    ahead = (scores > own) | ((scores == own) & (np.arange(len(table)) < target[:, None]))
    return 1 + ahead.sum(1), top


def in_torch(
    plans: tuple[Ranking, ...],
    hidden: np.ndarray,
    table: np.ndarray,
    target: np.ndarray | None,
    seen: SeenItems | None,
    candidates: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    h, t = torch.from_numpy(hidden).to(DEVICE), torch.from_numpy(table).to(DEVICE)
    goal = None if target is None else torch.from_numpy(target).to(DEVICE)
    left_out = torch_ranking.Seen.of(seen, len(hidden), torch.device(DEVICE))
    chosen = None if candidates is None else torch.from_numpy(candidates).to(DEVICE)
    rank, top = torch_ranking.rank_by_kernels(plans, h, t, goal, left_out, chosen)
    return rank.cpu().numpy(), top.cpu().numpy()


def in_jax(
    plans: tuple[Ranking, ...],
    hidden: np.ndarray,
    table: np.ndarray,
    target: np.ndarray | None,
    seen: SeenItems | None,
    candidates: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    call = jax.jit(jax_ranking.rank_by_kernels, static_argnums=0)
    goal = None if target is None else jnp.asarray(target)
    left_out = jax_ranking.Seen.of(seen, len(hidden))
    chosen = None if candidates is None else jnp.asarray(candidates)
    rank, top = call(plans, jnp.asarray(hidden), jnp.asarray(table), goal, left_out, chosen)
    return np.asarray(rank), np.asarray(top)


def most_seen(seen: SeenItems) -> int:
    return 1 << (int(np.bincount(seen.row).max()) - 1).bit_length()


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("leaves_out", [False, True], ids=["all compete", "seen left out"])
def test_the_definition(sizes: Sizes, framework: str, leaves_out: bool):
    hidden, table, target, seen = arrays(sizes)
    plans = plans_of(sizes, True, most_seen(seen) if leaves_out else 0)
    rank, top = (in_torch if framework == "torch" else in_jax)(
        plans, hidden, table, target, seen if leaves_out else None
    )
    want_rank, want_top = definition(hidden, table, target, sizes.k, seen if leaves_out else None)
    np.testing.assert_array_equal(rank, want_rank)
    np.testing.assert_array_equal(top, want_top)
    if not leaves_out:
        np.testing.assert_array_equal(rank, target_ranks(hidden, table, target))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_candidates(sizes: Sizes, framework: str):
    """Targets that are none are ranked among them all the same; blocks of none, and fewer than k."""
    hidden, table, target, seen = arrays(sizes)
    for share in (0.5, 3 / sizes.items):
        candidates = np.random.default_rng(1).random(sizes.items) < share
        candidates[: 2 * ranking.TILE] = False
        candidates[-1] = True
        plans = plans_of(sizes, True, most_seen(seen), has_candidates=True)
        found = (in_torch if framework == "torch" else in_jax)(plans, hidden, table, target, seen, candidates)
        for got, want in zip(found, definition(hidden, table, target, sizes.k, seen, candidates), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_top_without_targets_in_several_passes(framework: str, monkeypatch: pytest.MonkeyPatch):
    sizes = Sizes(66, 200, 8, 2)
    monkeypatch.setattr(ranking, "MEMORY", 1)
    hidden, table, target, seen = arrays(sizes)
    plans = plans_of(sizes, False, most_seen(seen))
    assert [plan.num_users for plan in plans] == [64, 2]
    _, top = (in_torch if framework == "torch" else in_jax)(plans, hidden, table, None, seen)
    np.testing.assert_array_equal(top, definition(hidden, table, target, 2, seen)[1])


@pytest.mark.parametrize("sizes", [CASES["all"], CASES["blocks"]], ids=["all", "blocks"])
def test_scores_that_are_not_finite(sizes: Sizes):
    """NaN is ahead of every target, and among the best where no other item is left; a target of NaN is behind all."""
    hidden, table, target, seen = arrays(sizes)
    table[sizes.items // 2] = np.nan
    table[3] = -np.inf
    hidden = np.abs(hidden) + 1  # the score of item 3 is minus infinity
    target[0] = sizes.items // 2
    rank, top = in_torch(plans_of(sizes, True, most_seen(seen)), hidden, table, target, seen)
    scores = hidden @ table.T
    scores[seen.row, seen.item] = -np.inf
    others = np.arange(1, sizes.users)
    own = scores[others, target[others]][:, None]
    ahead = (
        (scores[1:] > own) | np.isnan(scores[1:]) | ((scores[1:] == own) & (np.arange(sizes.items) < target[1:, None]))
    )
    ahead[seen.row[seen.row > 0] - 1, seen.item[seen.row > 0]] = False
    np.testing.assert_array_equal(rank, np.append(sizes.items + 1, 1 + ahead.sum(1)))
    for found, own in zip(top, seen_of(seen, sizes.users), strict=True):
        left = set(range(sizes.items)) - own
        assert set(found[found >= 0]) <= left
        if len(left) <= sizes.k:  # NaN and minus infinity among them
            assert set(found[found >= 0]) == left


def seen_of(seen: SeenItems, users: int) -> list[set[int]]:
    return [set(seen.item[seen.row == user].tolist()) for user in range(users)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_in_half_precision(dtype: torch.dtype):
    sizes = CASES["blocks"]
    hidden, table, target, _ = arrays(sizes)
    args = (torch.from_numpy(array).to(DEVICE) for array in (hidden, table, target))
    h, t, goal = args
    rank, top = torch_ranking.rank_by_kernels(plans_of(sizes, True, 0), h, t.to(dtype), goal, None)
    want = definition(hidden, table, target, sizes.k, None)
    np.testing.assert_array_equal(rank.cpu().numpy(), want[0])
    np.testing.assert_array_equal(top.cpu().numpy(), want[1])


def test_no_kernels_for_more_than_they_select():
    assert plan_ranking(4, 10**6, 64, ranking.MOST_K + 1, True, 0) is None
    assert plan_ranking(4, 37, 64, 40, True, 0) is None  # no more than there are
    assert plan_ranking(4, 2**31 - 1, 64, 10, True, 0) is None
    assert plan_ranking(512, 10**6, 64, 1000, True, 0) is not None


@pytest.mark.parametrize("k", [10, 100, 1000])
def test_memory_is_bounded(k: int):
    for plan in plan_ranking(512, 10**6, 64, k, True, 200) or ():
        assert 4 * sum(buffer.size for buffer in plan.buffers) <= 64 << 20


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [Sizes(300, 20_000, 64, 10), Sizes(64, 50_000, 100, 1000), Sizes(130, 9_000, 256, 7)])
def test_random_scores_on_a_gpu(sizes: Sizes):
    """Ranks and lists of float64, but for scores closer than rounding; the same bits in both frameworks; equal vectors
    tie, wherever they stand."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((sizes.users, sizes.dim)).astype(np.float32)
    table = rng.standard_normal((sizes.items, sizes.dim)).astype(np.float32)
    target = rng.integers(0, sizes.items, sizes.users).astype(np.int32)
    twins = rng.permutation(sizes.items)[: sizes.users]
    table[twins] = table[target]
    rows = Ragged.from_rows([rng.integers(0, sizes.items, 50) for _ in range(sizes.users)])
    seen = seen_items(rows, np.arange(sizes.users), target)
    rank, top = in_torch(plans_of(sizes, True, most_seen(seen)), hidden, table, target, seen)
    rank_jax, top_jax = in_jax(plans_of(sizes, True, most_seen(seen)), hidden, table, target, seen)
    np.testing.assert_array_equal(rank, rank_jax)
    np.testing.assert_array_equal(top, top_jax)

    scores = hidden.astype(np.float64) @ table.T.astype(np.float64)
    slack = sizes.dim * 2.0**-23 * np.linalg.norm(hidden, axis=1)[:, None] * np.linalg.norm(table, axis=1)[None]
    scores[seen.row, seen.item] = -np.inf
    own = scores[np.arange(sizes.users), target][:, None]
    alike = (table[None, :, :4] == table[target][:, None, :4]).all(2)  # the target and its twins
    ahead = np.where(alike, np.arange(sizes.items) < target[:, None], scores > own) & (scores > -np.inf)
    unsure = (np.abs(scores - own) <= slack + slack[np.arange(sizes.users), target][:, None]) & ~alike
    assert (np.abs(rank - 1 - ahead.sum(1)) <= (unsure & (scores > -np.inf)).sum(1)).all()
    found = np.take_along_axis(scores, top, 1)
    assert (np.diff(found, axis=1) <= 2 * slack.max()).all()
    assert (found[:, -1:] >= np.sort(scores, axis=1)[:, -sizes.k, None] - 2 * slack.max()).all()
    assert all(len(set(row)) == sizes.k for row in top.tolist())
