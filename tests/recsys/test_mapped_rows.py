"""Rows of a stored tensor that take other places."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.stored import filled
from cce_minus.recsys.run import tensor_file
from cce_minus.recsys.run.mapped_rows import MappedRows, last_rows, mapped_rows
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.torch_impl.stored import fill
from cce_minus.torch_impl.stored import stored as torch_stored

PLACES = np.array([4, -1, 0, 6, -1, 2, 1], np.int32)
AT_MEAN = np.array([3, 5], np.int32)  # and 7 stays as it is


def in_torch(source: MappedRows, before: np.ndarray, dtype: Any) -> np.ndarray:
    tensor = torch.from_numpy(before).to(getattr(torch, dtype))
    fill(tensor, source)
    return tensor.float().numpy()


def in_jax(source: MappedRows, before: np.ndarray, dtype: Any) -> np.ndarray:
    return np.asarray(filled(jnp.asarray(before, dtype), source), np.float32)


@pytest.mark.parametrize("copy", [in_torch, in_jax])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("to", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(7, 3), (7,)])
def test_rows_move_and_others_stay(copy: Any, dtype: str, to: str, shape: tuple[int, ...]):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    whole = torch_stored(rows)
    source = Stored(dtype, shape, lambda: iter(np.split(whole.array(), [2, 6])))
    before = np.arange(8 * rows[0].numel(), dtype=np.float32).reshape(8, *shape[1:])
    given = rows.float().numpy()
    expected = before.copy()
    for row, place in enumerate(PLACES):
        if place >= 0:
            expected[place] = given[row]
    mean = torch.from_numpy(given.mean(axis=0, dtype=np.float64).astype(np.float32)[None]).to(rows.dtype).float()
    expected[AT_MEAN] = mean.numpy()
    got = copy(mapped_rows(source, PLACES, AT_MEAN), before.copy(), to)
    np.testing.assert_array_equal(got, torch.from_numpy(expected).to(getattr(torch, to)).float().numpy())


def test_a_mean_comes_in_pieces_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensor_file, "PIECE", 32)  # of four rows
    source = mapped_rows(
        Stored.of(np.eye(2, dtype=np.float32)), np.zeros(2, np.int32), np.arange(1, 11, dtype=np.int32)
    )
    _, *new = source.pieces()
    assert [len(places) for places, _ in new] == [4, 4, 2]
    assert np.concatenate([places for places, _ in new]).tolist() == list(range(1, 11))
    assert all((rows == 0.5).all() for _, rows in new)


@pytest.mark.parametrize(
    ("length", "repeat", "expected"),
    [(2, True, [2, 3]), (3, False, [1, 2, 3]), (5, True, [1, 1, 1, 2, 3]), (5, False, [0, 0, 1, 2, 3])],
)
def test_the_last_rows(length: int, repeat: bool, expected: list[int]):
    found = last_rows(Stored.of(np.array([[1.0], [2.0], [3.0]])), length, repeat=repeat)
    assert found.shape == (length, 1)
    assert found.array().ravel().tolist() == expected
