"""Users with histories of like lengths in the same batches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import IGNORE, PAD, Ragged, Split, TrainConfig, epoch_batches, num_batches, train_batches
from cce_minus.recsys.protocol.row_lengths import choose_row_lengths, epoch_blocks, mean_row_length, trainable_rows
from cce_minus.recsys.run.experiment import longest_batch, mean_places, mean_positions, row_lengths, weighing_targets


def long_tailed(users: int, seed: int = 0) -> Ragged:
    """Most users with few items, and some with many."""
    rng = np.random.default_rng(seed)
    return Ragged.from_rows([np.arange(int(length)) for length in np.minimum(rng.pareto(0.9, users) * 3, 120)])


def split_of(train: Ragged) -> Split:
    nobody = Ragged.from_rows([])
    return Split(train, nobody, np.zeros(0, np.int32), nobody, np.zeros(0, np.int32), 200)


def places_of(inputs: np.ndarray, lengths: tuple[int, ...]) -> int:
    return sum(min(length for length in lengths if length >= min(each, lengths[-1])) for each in inputs.tolist())


@pytest.mark.parametrize("max_length", [20, 50, 64])
@pytest.mark.parametrize("seed", range(6))
def test_the_lengths_leave_the_fewest_places(seed: int, max_length: int):
    rng = np.random.default_rng(seed)
    inputs = np.concatenate(
        [rng.integers(1, most, count) for most, count in ((6, 300), (20, 200), (100, seed * 60), (max_length, 9))]
    )
    chosen = choose_row_lengths(inputs, max_length)
    max_length = min(max_length, -(-int(inputs.max()) // 8) * 8)
    shorter = range(8, max_length // 2 + 1, 8)
    best = {
        number: min(places_of(inputs, (*few, max_length)) for few in itertools.combinations(shorter, number))
        for number in (0, 1, 2)
        if number <= len(shorter)
    }
    least = 0.1 * best[0]
    expected = 0
    if best[0] - best[1] >= least:
        expected = 1
    if 2 in best and min(best[0], best[1]) - best[2] >= least:
        expected = 2
    assert len(chosen) == expected + 1
    assert chosen[-1] == max_length
    assert places_of(inputs, chosen) == best[expected]
    assert mean_row_length(inputs, chosen) * len(inputs) == pytest.approx(best[expected])


@pytest.mark.parametrize("inputs", [[], [200] * 50, [1] * 5 + [200] * 95])
def test_one_length_where_more_save_little(inputs: list[int]):
    assert choose_row_lengths(np.array(inputs, int), 200) == (200,)
    assert choose_row_lengths(np.array([1] * 99 + [15]), 15) == (15,)  # whose half holds no multiple of 8


def test_no_row_is_longer_than_the_longest_history():
    """Whose users may fill all batches."""
    for most, expected in ((1, 8), (8, 8), (9, 16), (44, 48), (60, 50)):
        assert choose_row_lengths(np.array([1] * 50 + [most]), 50)[-1] == expected
    for users, length in ((512, 10), (256, 3), (16, 200)):
        split = split_of(Ragged.from_rows([np.arange(length)] * users))
        for model in ("sasrec", "bert4rec"):
            config = TrainConfig(model=model, batch_size=16)
            (only,) = row_lengths(config, split)
            assert longest_batch(config, split).inputs.shape == (16, only)
            assert only - 8 < length <= only + 1


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("ahead", [0, 1])
def test_every_user_comes_once_in_a_row_that_holds_the_history(accumulate: int, ahead: int):
    train, size, lengths = long_tailed(700), 4, (8, 24, 64)
    blocks = epoch_blocks(
        train, batch_size=size, row_lengths=lengths, seed=3, epoch=5, accumulate=accumulate, ahead=ahead
    )
    rows = np.concatenate([block.rows for block in blocks])
    assert sorted(rows[rows >= 0].tolist()) == trainable_rows(train).tolist()
    assert len(rows) == num_batches(train, batch_size=size)  # as many as without groups
    assert [block.first for block in blocks] == np.cumsum([0, *(len(block.rows) for block in blocks)])[:-1].tolist()
    assert {block.length for block in blocks} == set(lengths)
    updates, grouped = 0, 0
    for block in blocks:
        inputs = np.where(block.rows >= 0, np.minimum(train.lengths[block.rows] - ahead, 64), 0)
        assert (inputs <= block.length).all()
        shorter = max((each for each in lengths if each < block.length), default=0)
        grouped += int((inputs > shorter).sum())
        assert len(block.rows) <= 16
        updates += -(-len(block.rows) // accumulate)
        if block.length < 64:  # only the last update of all may lack batches or users
            assert (block.rows >= 0).all()
            assert len(block.rows) % accumulate == 0
    assert updates == -(-len(rows) // accumulate)
    # all but what does not fill an update are where they belong
    assert grouped >= len(trainable_rows(train)) - 2 * size * accumulate
    turns = [block.length for block in blocks]
    assert turns != sorted(turns)


def test_epochs_differ_and_repeat():
    train = long_tailed(300)

    def users(**options: int) -> list[list[int]]:
        order = {"seed": 1, "epoch": 2, **options}
        return [
            block.rows.ravel().tolist() for block in epoch_blocks(train, batch_size=4, row_lengths=(8, 64), **order)
        ]

    assert users() == users()
    assert users() != users(epoch=3)
    assert users() != users(seed=2)


@pytest.mark.parametrize("model", ["sasrec", "bert4rec"])
def test_grouped_batches_hold_what_others_hold(model: str):
    split = split_of(long_tailed(500))
    config = TrainConfig(max_length=64, batch_size=4, seed=7, model=model)
    lengths = row_lengths(config, split)
    assert len(lengths) > 1
    apart, together = (
        list(epoch_batches(TrainConfig(**{**vars(config), "group_by_length": grouped}), split, 1))
        for grouped in (False, True)
    )
    assert len(apart) == len(together)
    assert {batch.inputs.shape for batch in together} == {(4, length) for length in lengths}

    def rows(batches: list) -> list:
        found = [
            row[row != PAD].tolist()
            for batch in batches
            for row in np.where(batch.inputs == -2, batch.targets, batch.inputs)
        ]
        return sorted(row for row in found if row)

    assert rows(together) == rows(apart)
    places = [batch.inputs.size for batch in together]
    assert np.mean(places) == pytest.approx(mean_places(config, split), rel=0.1)
    assert sum(places) < 0.5 * sum(batch.inputs.size for batch in apart)
    if model == "sasrec":
        counts = [int((batch.targets != IGNORE).sum()) for batch in together]
        assert np.mean(counts) == pytest.approx(mean_positions(config, split))
        assert weighing_targets(config, split) == pytest.approx(np.mean(counts))
        assert max(counts) > 3 * min(counts)  # which the weights make good
    assert longest_batch(config, split).inputs.shape == (4, 64)


def test_an_epoch_of_groups_can_be_entered_at_any_step():
    train = long_tailed(200)
    options = {"batch_size": 4, "max_length": 64, "seed": 0, "epoch": 1, "row_lengths": (8, 64)}
    whole = list(train_batches(train, **options))
    for start in (1, 17, len(whole)):
        rest = list(train_batches(train, **options, start_step=start))
        assert len(rest) == len(whole) - start
        for expected, got in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(got.inputs, expected.inputs)
            np.testing.assert_array_equal(got.targets, expected.targets)


def test_without_groups_batches_are_cut_from_the_permutation():
    train = long_tailed(50)
    (block,) = epoch_blocks(train, batch_size=4, row_lengths=(64,), seed=3, epoch=2)
    order = np.random.default_rng((3, 2)).permutation(trainable_rows(train))
    assert block.rows.ravel()[: len(order)].tolist() == order.tolist()
    split = split_of(train)
    choices: list[dict[str, Any]] = [{"group_by_length": False}, {"table_on": "host", "item_optimizer": "lazy-adam"}]
    for options in choices:
        config = TrainConfig(max_length=64, batch_size=4, num_negatives=4, **options)
        assert row_lengths(config, split) == (64,)
        assert weighing_targets(config, split) is None
