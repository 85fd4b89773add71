from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import (
    IGNORE,
    PAD,
    Batch,
    ConfigError,
    DataError,
    Ragged,
    eval_batches,
    mean_targets,
    num_batches,
    train_batches,
)

P, X = PAD, IGNORE


def epoch(train: Ragged, **options: int) -> list[Batch]:
    settings: dict[str, Any] = {"batch_size": 4, "max_length": 6, "seed": 0, "epoch": 0, **options}
    return list(train_batches(train, **settings))


def users(count: int, rng_seed: int = 0) -> Ragged:
    rng = np.random.default_rng(rng_seed)
    return Ragged.from_rows([rng.integers(0, 100, rng.integers(1, 12)) for _ in range(count)])


def test_padding_and_shift_by_hand():
    train = Ragged.from_rows([[1, 2, 3]])
    (batch,) = epoch(train, batch_size=2, max_length=4)
    assert batch.inputs.tolist() == [[P, P, 1, 2], [P, P, P, P]]
    assert batch.targets.tolist() == [[X, X, 2, 3], [X, X, X, X]]
    assert batch.inputs.dtype == batch.targets.dtype == np.int32


@pytest.mark.parametrize("length", [4, 5, 6])
def test_long_users_keep_their_last_items(length: int):
    (batch,) = epoch(Ragged.from_rows([list(range(length))]), batch_size=1, max_length=3)
    assert batch.inputs.tolist() == [[length - 4, length - 3, length - 2]]
    assert batch.targets.tolist() == [[length - 3, length - 2, length - 1]]


def test_item_zero_is_no_padding():
    (batch,) = epoch(Ragged.from_rows([[0, 0, 0]]), batch_size=1, max_length=3)
    assert batch.inputs.tolist() == [[P, 0, 0]]
    assert batch.targets.tolist() == [[X, 0, 0]]


def test_users_with_fewer_than_two_items_are_skipped():
    train = Ragged.from_rows([[5], [], [1, 2], [7]])
    (batch,) = epoch(train, batch_size=1, max_length=2)
    assert batch.inputs.tolist() == [[P, 1]]
    assert epoch(Ragged.from_rows([[5], []])) == []


def test_every_user_comes_once_an_epoch_in_constant_shapes():
    train = users(41)
    trainable = [row for row in train if len(row) >= 2]
    batches = epoch(train)
    assert len(batches) == num_batches(train, batch_size=4) == -(-len(trainable) // 4)
    targets = [int((batch.targets != IGNORE).sum()) for batch in batches]
    assert mean_targets(train, batch_size=4, max_length=6) == np.mean(targets)
    assert {batch.inputs.shape for batch in batches} == {(4, 6)}
    assert {batch.targets.shape for batch in batches} == {(4, 6)}
    targets = np.concatenate([batch.targets for batch in batches])
    seen = sorted(row[row != IGNORE].tolist() for row in targets if (row != IGNORE).any())
    assert seen == sorted(row[1:][-6:].tolist() for row in trainable)
    assert all(((batch.inputs == PAD) == (batch.targets == IGNORE)).all() for batch in batches)


def test_order_is_a_function_of_seed_and_epoch():
    train = users(41)

    def order(**options: int) -> list[int]:
        return np.concatenate([batch.inputs for batch in epoch(train, **options)]).ravel().tolist()

    assert order(seed=3, epoch=2) == order(seed=3, epoch=2)
    assert len({tuple(order(seed=seed, epoch=number)) for seed in (3, 4) for number in (0, 1, 2)}) == 6


@pytest.mark.parametrize("start_step", [0, 1, 5, 9])
def test_an_epoch_can_be_entered_at_any_step(start_step: int):
    train = users(41)
    whole, rest = epoch(train), epoch(train, start_step=start_step)
    assert len(rest) == len(whole) - start_step
    for expected, got in zip(whole[start_step:], rest, strict=True):
        np.testing.assert_array_equal(got.inputs, expected.inputs)
        np.testing.assert_array_equal(got.targets, expected.targets)


def test_an_epoch_entered_at_its_end_is_empty():
    train = users(41)
    assert epoch(train, start_step=num_batches(train, batch_size=4)) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("max_length", 0),
        ("max_length", -1),
        ("start_step", -1),
        ("start_step", 99),
        ("accumulate", 0),
        ("row_lengths", (4, 2)),
        ("row_lengths", (3, 3)),
        ("row_lengths", (0, 6)),
        ("row_lengths", (4, 8)),
    ],
)
def test_bad_options_raise_before_the_first_batch(option: str, value: Any):
    settings: dict[str, Any] = {"batch_size": 4, "max_length": 6, "seed": 0, "epoch": 0, option: value}
    with pytest.raises(ConfigError, match=option):
        train_batches(users(8), **settings)


def test_eval_batches_by_hand():
    histories = Ragged.from_rows([[1], [1, 2, 3, 4], []])
    first, second = eval_batches(histories, np.array([7, 8, 9], dtype=np.int32), batch_size=2, max_length=3)
    assert first.inputs.tolist() == [[P, P, 1], [2, 3, 4]]
    assert first.target.tolist() == [7, 8]
    assert first.count == 2
    assert second.inputs.tolist() == [[P, P, P], [P, P, P]]
    assert second.target.tolist() == [9, X]
    assert second.count == 1
    assert first.inputs.dtype == first.target.dtype == np.int32


def test_eval_batches_refuses_targets_that_do_not_fit():
    with pytest.raises(ConfigError, match="targets: expected one for each of 2 histories, got 1"):
        eval_batches(Ragged.from_rows([[1], [2]]), np.array([1], dtype=np.int32), batch_size=2, max_length=3)
    with pytest.raises(ConfigError, match="batch_size"):
        eval_batches(Ragged.from_rows([[1]]), np.array([1], dtype=np.int32), batch_size=0, max_length=3)


@pytest.mark.parametrize("target", [2**32 + 1, 1.5])
def test_eval_batches_keep_targets_whole(target: float):
    with pytest.raises(DataError, match="targets: expected"):
        eval_batches(Ragged.from_rows([[1]]), np.array([target]), batch_size=1, max_length=3)
