"""The draws: permutations, their statistics over sequential seeds, and one implementation for every array library."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from cce_minus.kernels import AllItems, ArgumentError, UniformNegatives, fold_seed, negative_ids
from cce_minus.kernels.draws import permutation as pm
from cce_minus.kernels.draws.permutation import fold_seeds
from cce_minus.torch_impl.loss.candidates import arithmetic
from scipy import stats

SIGNIFICANCE = 1e-4  # of a two-sided test; seeds are fixed, so that a right implementation passes for good
SEEDS = 20_000


def keys_of_seeds(seeds: np.ndarray, domain: int = pm.DOMAIN_ITEMS, rounds: int = 0) -> np.ndarray:
    words = np.zeros_like(seeds, np.uint32), seeds.astype(np.uint32)
    return pm.round_keys(pm.NUMPY, words, domain, np.full(len(seeds), rounds))[:, :, None]


def assert_uniform(counts: np.ndarray, expected: np.ndarray | None = None) -> None:
    """Neither too far from uniform nor too close to it."""
    p = stats.chisquare(counts, expected).pvalue
    assert SIGNIFICANCE / 2 < p < 1 - SIGNIFICANCE / 2, p


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 255, 256, 257, 1000, 4097])
def test_permutation_is_a_bijection_with_its_inverse(n: int):
    keys = pm.round_keys(pm.NUMPY, (pm.NUMPY.u32(3), pm.NUMPY.u32(2**32 - 1)), pm.DOMAIN_ITEMS, 9)
    image = pm.permute(pm.NUMPY, np.arange(n), n, keys)
    assert sorted(image) == list(range(n))
    assert (pm.permute(pm.NUMPY, image, n, keys, inverse=True) == np.arange(n)).all()
    on_device = pm.permute(pm.NUMPY, np.arange(n), np.full(n, n, np.uint32), keys)
    assert (on_device == image).all(), "a size known on the device only gives the same permutation"


def test_splitmix64_stream_matches_integers():
    def reference(state: int) -> int:
        mask = 2**64 - 1
        z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    for seed, index in itertools.product([0, 1, 2**32 - 1, 2**63 + 7], [0, 1, 12345]):
        words = tuple(pm.NUMPY.u32(word) for word in pm.seed_words(seed))
        high, low = pm.stream64(pm.NUMPY, words, (pm.NUMPY.u32(0), pm.NUMPY.u32(index)))  # type: ignore[arg-type]
        assert (int(high[0]) << 32) | int(low[0]) == reference(seed + index * 0x9E3779B97F4A7C15)


@pytest.mark.parametrize("n", [5, 60, 255, 256, 1000])
def test_marginals_and_pairs_over_sequential_seeds(n: int):
    positions = np.arange(min(n, 4), dtype=np.uint32)[None, :]
    drawn = pm.permute(pm.NUMPY, positions, n, keys_of_seeds(np.arange(SEEDS))).astype(np.int64)
    for place in range(drawn.shape[1]):
        assert_uniform(np.bincount(drawn[:, place], minlength=n))
    for first, second in itertools.combinations(range(drawn.shape[1]), 2):
        distance = (drawn[:, second] - drawn[:, first]) % n
        assert (distance > 0).all()
        assert_uniform(np.bincount(distance, minlength=n)[1:])


@pytest.mark.parametrize("n", [60, 256, 1000])
def test_seeds_rounds_and_domains_are_independent(n: int):
    start = np.zeros((1, 1), np.uint32)
    seeds = np.arange(SEEDS)
    base = pm.permute(pm.NUMPY, start, n, keys_of_seeds(seeds))[:, 0].astype(np.int64)
    others = {
        "next seed": keys_of_seeds(seeds + 1),
        "next round": keys_of_seeds(seeds, rounds=1),
        "other domain": keys_of_seeds(seeds, pm.DOMAIN_BLOCKS),
    }
    for name, keys in others.items():
        other = pm.permute(pm.NUMPY, start, n, keys)[:, 0].astype(np.int64)
        counts = np.bincount((other - base) % n, minlength=n)
        p = stats.chisquare(counts).pvalue
        assert SIGNIFICANCE / 2 < p < 1 - SIGNIFICANCE / 2, (name, p)


def test_neighbouring_positions_go_to_neighbouring_items_as_often_as_chance():
    n = 1000
    image = pm.permute(pm.NUMPY, np.arange(n)[None, :], n, keys_of_seeds(np.arange(500))).astype(np.int64)
    near = (np.abs(np.diff(image, axis=1)) == 1).sum()
    expected = 500 * (n - 1) * 2 / n
    assert abs(near - expected) < 4 * expected**0.5


SAMPLERS = [
    (UniformNegatives(1, 1), 97), (UniformNegatives(40, 1), 97), (UniformNegatives(90, 1), 97), (UniformNegatives(150,
    1), 301),
    (UniformNegatives(70, 1), 570), (UniformNegatives(71, 1), 570), (UniformNegatives(150, 1), 2000),
    (UniformNegatives(1, 16), 97), (UniformNegatives(40, 16), 97), (UniformNegatives(65, 16), 301),
    (UniformNegatives(100, 32, shuffle_rows=False), 1000), (UniformNegatives(130, 16), 131),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "num_items"), SAMPLERS, ids=str)
def test_rows_are_distinct_items_and_uniform(sampler: UniformNegatives, num_items: int):
    k, seeds = sampler.num_negatives, 5000
    draws = sampler.draw(num_items).uniform
    assert draws is not None
    words = np.zeros((seeds, 1), np.uint32), np.arange(seeds, dtype=np.uint32)[:, None]
    first = draws.items(pm.NUMPY, words, np.zeros(seeds)).astype(np.int64)  # the first row of every seed
    for seed in (0, 1, seeds - 1):
        assert (first[seed] == negative_ids(sampler, num_rows=1, num_items=num_items, seed=seed)[0]).all()
    assert first.shape == (seeds, k)
    assert first.min() >= 0
    assert first.max() < num_items
    assert all(len(set(row)) == k for row in first.tolist())
    counts = np.bincount(first.ravel(), minlength=num_items)
    # draws without replacement vary less than independent ones: the variance is 1 - K / V of theirs
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum() / (1 - (k - 1) / (num_items - 1))
    p = stats.chi2.sf(statistic, num_items - 1)
    assert SIGNIFICANCE / 2 < p < 1 - SIGNIFICANCE / 2, p
    if k > 1:
        assert_uniform(np.bincount((first[:, 1] - first[:, 0]) % num_items, minlength=num_items)[1:])


@pytest.mark.parametrize(
    ("sampler", "num_items", "draws_a_round", "unit"),
    [
        (UniformNegatives(40, 1), 500, 12, 1),
        (UniformNegatives(128, 1), 1025, 8, 1),
        (UniformNegatives(128, 16, shuffle_rows=False), 2000, 15, 64),
    ],
    ids=["independent", "independent, two strata", "grouped"],
)
def test_rounds_and_seeds_share_no_more_than_chance(
    sampler: UniformNegatives, num_items: int, draws_a_round: int, unit: int
):
    """Within a round draws are disjoint; across rounds and seeds they share items (or blocks of ``unit``) by chance."""
    k, draws, seeds = sampler.num_negatives, 6 * draws_a_round, range(20)
    masks = []
    for seed in seeds:
        ids = negative_ids(sampler, num_rows=draws * sampler.group_size, num_items=num_items, seed=seed)
        mask = np.zeros((draws, num_items), np.int64)
        np.put_along_axis(mask, ids[:: sampler.group_size], 1, 1)  # one row of each group
        masks.append(mask)
    # a seed's whole draw, one count an item: rounds overlap by chance exactly if every round is a fresh permutation
    between = np.array([(masks[i].sum(0) * masks[i + 1].sum(0)).sum() for i in range(0, len(masks), 2)], float)
    pairs = draws * draws
    chance = k * k / num_items
    spread = (unit * chance / pairs) ** 0.5
    assert abs(between.mean() / pairs - chance) < 5 * spread / len(between) ** 0.5, "seeds"
    rounds = np.arange(draws) // draws_a_round
    same = rounds[:, None] == rounds
    overlap = np.stack([mask @ mask.T for mask in masks])
    assert (overlap[:, same & ~np.eye(draws, dtype=bool)] == 0).all(), "within a round"
    # blocks of the items that take part in a step: all but V mod unit
    chance_of_rounds = k * k / (num_items - num_items % unit)
    across = overlap[:, ~same]
    assert abs(across.mean() - chance_of_rounds) < 5 * (unit * chance / (across.size / 2)) ** 0.5, "rounds"


def test_every_item_in_its_own_order():
    for sampler in (AllItems(), UniformNegatives(7), UniformNegatives(9, 1)):
        ids = negative_ids(sampler, num_rows=3, num_items=7, seed=1)
        assert (ids == np.arange(7)).all()
        assert ids.shape == (3, 7)


def test_shuffled_rows_fill_groups_and_unshuffled_ones_in_order():
    shuffled = negative_ids(UniformNegatives(8, 16), num_rows=100, num_items=640, seed=4)
    _, sizes = np.unique(shuffled, axis=0, return_counts=True)
    assert sorted(sizes) == [4, 16, 16, 16, 16, 16, 16]
    plain = negative_ids(UniformNegatives(8, 16, shuffle_rows=False), num_rows=100, num_items=640, seed=4)
    assert (plain[:16] == plain[0]).all()
    assert (plain[16] != plain[0]).any()


def test_torch_words_give_the_same_permutation():
    xp = arithmetic(torch.device("cpu"))
    for n in (5, 255, 1000):
        numpy_keys = pm.round_keys(pm.NUMPY, (pm.NUMPY.u32(2**31 + 5), pm.NUMPY.u32(77)), 1, 2**20)
        torch_keys = pm.round_keys(xp, (xp.u32(2**31 + 5), xp.u32(77)), 1, 2**20)
        assert [int(k) for k in torch_keys] == [int(k[0]) for k in numpy_keys]
        image = pm.permute(xp, torch.arange(n), n, torch_keys)
        assert image.tolist() == pm.permute(pm.NUMPY, np.arange(n), n, numpy_keys).tolist()


def test_fold_seed_gives_distinct_seeds():
    folded = {fold_seed(seed, index) for seed in range(50) for index in range(50)}
    assert len(folded) == 2500
    assert fold_seed(-1, 3) == fold_seed(2**64 - 1, 3)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: UniformNegatives(0), "num_negatives"),
        (lambda: UniformNegatives(-3), "num_negatives"),
        (lambda: UniformNegatives(2.5), "num_negatives"),  # type: ignore[arg-type]
        (lambda: UniformNegatives(True), "num_negatives"),
        (lambda: UniformNegatives(5, group_size=8), "group_size"),
        (lambda: UniformNegatives(5, group_size=100), "group_size"),
        (lambda: UniformNegatives(5, group_size=512), "group_size"),
        (lambda: UniformNegatives(5, shuffle_rows=1), "shuffle_rows"),  # type: ignore[arg-type]
        (lambda: negative_ids(UniformNegatives(5), num_rows=-1, num_items=9, seed=0), "num_rows"),
        (lambda: negative_ids(UniformNegatives(5), num_rows=1, num_items=0, seed=0), "num_items"),
        (lambda: negative_ids(UniformNegatives(5), num_rows=1, num_items=9, seed=0.5), "seed"),  # type: ignore
    ],
)
def test_bad_values_name_the_argument(make, argument: str):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert caught.value.argument == argument
    assert isinstance(caught.value, (TypeError, ValueError))


def test_seeds_are_folded_alike_one_by_one_and_all_at_once():
    indices = np.array([0, 1, 5, 2**31, 2**32 - 1])
    for seed in (0, 7, 2**64 - 1, -3):
        folded = fold_seeds(seed, indices)
        assert folded.dtype == np.uint64
        assert folded.tolist() == [fold_seed(seed, index) for index in indices.tolist()]
