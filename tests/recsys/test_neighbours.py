"""Rows that new items start from, of the items beside theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cce_minus.recsys import Ragged
from cce_minus.recsys.run import neighbours, tensor_file
from cce_minus.recsys.run.mapped_rows import mapped_rows
from cce_minus.recsys.run.neighbours import Neighbours
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.torch_impl.stored import fill
from cce_minus.torch_impl.stored import stored as torch_stored

PLACES = np.array([3, 0, -1, 5, 1], np.int32)
"""Of five items yesterday in today's eight, of which 2, 4, 6 and 7 are new."""

NEW = np.array([2, 4, 6, 7], np.int32)


def started(train: Ragged, table: Stored, places: np.ndarray, new: np.ndarray, num_items: int) -> np.ndarray:
    """Today's table in its dtype, NaN where nothing has been written."""
    rows = torch.full((num_items, *table.shape[1:]), torch.nan, dtype=getattr(torch, table.dtype))
    fill(rows, mapped_rows(table, places, new, Neighbours.of(train, places, new)))
    return rows.float().numpy()


def by_loops(
    train: Ragged, table: np.ndarray, places: np.ndarray, new: np.ndarray, num_items: int, distance: int = 3
) -> np.ndarray:
    """The same, an event after the other."""
    rows: list[list[tuple[float, np.ndarray]]] = [[] for _ in range(num_items)]
    row_of = {int(place): number for number, place in enumerate(places) if place >= 0}
    for history in train:
        for place, item in enumerate(history):
            for side in (history[:place][::-1], history[place + 1 :]):
                known = [table[row_of[int(other)]] for other in side if int(other) in row_of][:distance]
                rows[item] += [(1 / number, row) for number, row in enumerate(known, start=1)]
    found = np.full((num_items, table.shape[1]), np.nan)
    for item in new:
        mean = table.mean(axis=0, dtype=np.float64)
        weights = np.array([1.0, *(weight for weight, _ in rows[item])])
        near = np.stack([mean, *(row for _, row in rows[item])])
        direction, length = weights @ near, weights @ np.linalg.norm(near, axis=1) / weights.sum()
        found[item] = length * direction / np.linalg.norm(direction)
    for item, number in row_of.items():
        found[item] = table[number]
    return found.astype(np.float32)


def test_a_row_has_the_direction_of_its_neighbours_mean_and_their_length():
    """Item 2 is once between 0 and 3, and once before 0 behind item 4, which is skipped; item 6 comes alone."""
    table = np.array([[0, 2], [4, 0], [9, 9], [0, 3], [2, 1]], np.float32)  # whose mean is (3, 3)
    train = Ragged.from_rows([[0, 2, 3], [2, 4, 0], [6], [4, 4]])
    got = started(train, Stored.of(table), PLACES, NEW, 8)
    # item 0, table row 1, twice, and item 3, table row 0, once; and the mean
    direction, length = np.array([2 * 4 + 3, 2 + 3]), (2 * 4 + 2 + 18**0.5) / 4
    np.testing.assert_allclose(got[2], length * direction / np.linalg.norm(direction), rtol=1e-6)
    direction, length = np.array([4 + 3, 3]), (4 + 18**0.5) / 2
    np.testing.assert_allclose(got[4], length * direction / np.linalg.norm(direction), rtol=1e-6)
    np.testing.assert_array_equal(got[[6, 7]], np.full((2, 2), 3))
    np.testing.assert_array_equal(got[[3, 0, 5, 1]], table[[0, 1, 3, 4]])


def test_the_nearer_count_for_more_and_the_fourth_not_at_all():
    train = Ragged.from_rows([[3, 1, 0, 5, 2]])
    found = Neighbours.of(train, PLACES, NEW)
    assert found.items.tolist() == [2]
    # events 5, 0 and 1 are of table rows 3, 1 and 4
    assert found.known.tolist() == [1, 3, 4]
    np.testing.assert_allclose(found.weights, [1 / 2, 1, 1 / 3])


def test_neighbours_that_cancel_out_give_zeros():
    table = np.array([[1, 1], [-1, -1], [0, 0], [0, 0], [0, 0]], np.float32)
    got = started(Ragged.from_rows([[3, 2, 0], [1, 4, 5]]), Stored.of(table), PLACES, NEW, 8)
    np.testing.assert_array_equal(got[[2, 4]], np.zeros((2, 2)))


@pytest.mark.parametrize("train", [Ragged.from_rows([]), Ragged.from_rows([[], [0, 3], []]), Ragged.from_rows([[2]])])
def test_without_neighbours_there_is_the_mean(train: Ragged):
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert len(Neighbours.of(train, PLACES, NEW).items) == 0
    got = started(train, Stored.of(table), PLACES, NEW, 8)
    np.testing.assert_array_equal(got[NEW], np.repeat(table.mean(axis=0)[None], 4, axis=0))


def test_no_new_items():
    none = np.zeros(0, np.int32)
    assert len(Neighbours.of(Ragged.from_rows([[0, 2, 3]]), PLACES, none).items) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("piece", [64, 512, 2**28])
def test_pieces_of_any_size_give_what_loops_do(dtype: str, piece: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    num_items, num_before, dim = 60, 50, 8
    places = np.where(rng.random(num_before) < 0.8, rng.permutation(num_items)[:num_before], -1).astype(np.int32)
    new = np.setdiff1d(np.arange(num_items, dtype=np.int32), places)
    train = Ragged.from_rows([rng.integers(0, num_items - 1, rng.integers(0, 30)) for _ in range(40)])
    table = torch.from_numpy(rng.normal(size=(num_before, dim)).astype(np.float32)).to(getattr(torch, dtype))
    monkeypatch.setattr(tensor_file, "PIECE", piece)
    monkeypatch.setattr(neighbours, "_AT_ONCE", piece)
    got = started(train, torch_stored(table), places, new, num_items)
    expected = torch.from_numpy(by_loops(train, table.float().numpy(), places, new, num_items))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(got, expected.numpy(), rtol=tolerance, atol=1e-6)
