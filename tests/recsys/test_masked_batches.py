from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import (
    IGNORE,
    MASK,
    PAD,
    Batch,
    ConfigError,
    Ragged,
    TrainConfig,
    masked_batches,
    mean_masked,
    num_batches,
    train_batches,
)
from cce_minus.recsys.protocol.masked_batches import LAST_ONLY
from cce_minus.recsys.protocol.splits import Split
from cce_minus.recsys.run.experiment import epoch_batches, loss_options

SETTINGS: dict[str, Any] = {"batch_size": 4, "max_length": 6, "mask_probability": 0.3, "seed": 0, "epoch": 0}


def epoch(train: Ragged, **options: Any) -> list[Batch]:
    return list(masked_batches(train, **(SETTINGS | options)))


def users(count: int, longest: int = 11) -> Ragged:
    rng = np.random.default_rng(0)
    return Ragged.from_rows([rng.integers(0, 100, rng.integers(1, longest + 1)) for _ in range(count)])


def stacked(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([batch.inputs for batch in batches]), np.concatenate([batch.targets for batch in batches])


def test_inputs_and_targets_are_the_items_between_them():
    train = users(41)
    batches = epoch(train)
    assert len(batches) == num_batches(train, batch_size=4)
    assert {(batch.inputs.shape, batch.targets.shape) for batch in batches} == {((4, 6), (4, 6))}
    assert {array.dtype for batch in batches for array in (batch.inputs, batch.targets)} == {np.dtype(np.int32)}
    inputs, targets = stacked(batches)
    np.testing.assert_array_equal(targets != IGNORE, inputs == MASK)
    items = np.where(inputs == MASK, targets, inputs)
    rows = sorted(row[row != PAD].tolist() for row in items if (row != PAD).any())
    assert rows == sorted(row[-6:].tolist() for row in train if len(row) >= 2)
    assert (np.diff((items != PAD).astype(int), axis=1) >= 0).all()  # padding on the left only


def test_users_come_in_the_order_of_next_item_batches():
    train = users(41)
    inputs, targets = stacked(epoch(train, epoch=3))
    others = train_batches(train, batch_size=4, max_length=6, seed=0, epoch=3)
    last = np.concatenate([batch.targets[:, -1] for batch in others])
    np.testing.assert_array_equal(np.where(inputs == MASK, targets, inputs)[last != IGNORE, -1], last[last != IGNORE])


@pytest.mark.parametrize("probability", [1e-9, 0.05, 0.999])
def test_every_row_masks_an_item(probability: float):
    inputs, _ = stacked(epoch(users(300), mask_probability=probability))
    present = (inputs != PAD).any(axis=1)
    masks = (inputs == MASK).sum(axis=1)
    assert (masks[present] >= 1).all()
    assert not masks[~present].any()
    if probability < 1e-6:
        assert (masks <= 1).all()


def test_masks_come_at_their_rate_everywhere():
    length, probability, rows = 20, 0.3, 20_000
    train = Ragged.from_rows(list(np.random.default_rng(0).integers(0, 100, (rows, length))))
    inputs, _ = stacked(epoch(train, batch_size=500, max_length=length, mask_probability=probability))
    masked = inputs == MASK
    spread = 5 * np.sqrt(probability * (1 - probability) / rows)
    # Before the last place: drawn in all rows but those with the last item alone; (1 - p)^n of rows that drew none adds
    # nothing here.
    np.testing.assert_allclose(masked[:, :-1].mean(axis=0), (1 - LAST_ONLY) * probability, atol=spread)
    np.testing.assert_allclose(masked[:, -1].mean(), LAST_ONLY + (1 - LAST_ONLY) * probability, atol=spread)
    alone = masked[:, -1] & (masked.sum(axis=1) == 1)
    expected = LAST_ONLY + (1 - LAST_ONLY) * probability * (1 - probability) ** (length - 1)
    np.testing.assert_allclose(alone.mean(), expected, atol=5 * np.sqrt(LAST_ONLY / rows))
    # Neighbours are masked independently of each other.
    drawn = masked[~alone].astype(float)
    assert abs(np.corrcoef(drawn[:, 3], drawn[:, 4])[0, 1]) < 5 / np.sqrt(rows)


def test_mean_masked_is_the_mean():
    train, options = users(500, longest=6), {"batch_size": 8, "max_length": 5, "mask_probability": 0.2}
    counts = [(batch.targets != IGNORE).sum() for seed in range(40) for batch in epoch(train, seed=seed, **options)]
    error = np.std(counts) / np.sqrt(len(counts))
    assert abs(mean_masked(train, **options) - np.mean(counts)) < 4 * error
    assert error < 0.01 * np.mean(counts)


def test_an_epoch_is_a_function_of_seed_and_epoch():
    train = users(41)

    def masks(**options: int) -> bytes:
        return b"".join(batch.inputs.tobytes() + batch.targets.tobytes() for batch in epoch(train, **options))

    assert masks(seed=3, epoch=2) == masks(seed=3, epoch=2)
    assert len({masks(seed=seed, epoch=number) for seed in (3, 4) for number in (0, 1, 2)}) == 6


def test_steps_draw_their_own_masks():
    train = Ragged.from_rows([list(range(6))] * 40)
    assert len({(batch.inputs == MASK).tobytes() for batch in epoch(train)}) == 10


@pytest.mark.parametrize("start_step", [0, 1, 5, 9])
def test_an_epoch_can_be_entered_at_any_step(start_step: int):
    train = users(41)
    whole, rest = epoch(train), epoch(train, start_step=start_step)
    assert len(rest) == len(whole) - start_step
    for expected, got in zip(whole[start_step:], rest, strict=True):
        np.testing.assert_array_equal(got.inputs, expected.inputs)
        np.testing.assert_array_equal(got.targets, expected.targets)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("max_length", 0),
        ("start_step", -1),
        ("start_step", 99),
        ("mask_probability", 0.0),
        ("mask_probability", 1.0),
    ],
)
def test_bad_options_raise_before_the_first_batch(option: str, value: Any):
    with pytest.raises(ConfigError, match=option):
        masked_batches(users(8), **(SETTINGS | {option: value}))


def test_a_run_takes_the_batches_of_its_model():
    nobody = np.zeros(0, np.int32)
    split = Split(users(41), Ragged.from_rows([]), nobody, Ragged.from_rows([]), nobody, 100)
    options: dict[str, Any] = {"batch_size": 4, "max_length": 6, "loss": "sce"}
    for model in ("sasrec", "ligr"):
        config = TrainConfig(model=model, **options)
        assert all((batch.inputs != MASK).all() for batch in epoch_batches(config, split, 1))
    config = TrainConfig(model="bert4rec", mask_probability=0.3, **options)
    for batch, expected in zip(epoch_batches(config, split, 1), epoch(split.train, epoch=1), strict=True):
        np.testing.assert_array_equal(batch.inputs, expected.inputs)
    positions = mean_masked(split.train, batch_size=4, max_length=6, mask_probability=0.3)
    assert loss_options(config, split)["n_buckets"] == round(2 * np.sqrt(positions))
