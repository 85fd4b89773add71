from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import DataError, Ragged
from cce_minus.recsys.data.ragged import take_ranges


def test_rows_by_index_and_in_order():
    rows = Ragged.from_rows([[1, 2], [], [3]])
    assert len(rows) == 3
    assert rows.offsets.tolist() == [0, 2, 2, 3]
    assert rows.lengths.tolist() == [2, 0, 1]
    assert [row.tolist() for row in rows] == [[1, 2], [], [3]]
    assert rows[-1].tolist() == [3]
    assert rows.values.dtype == np.int32


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_out_of_range_raises(row: int):
    with pytest.raises(IndexError, match="of 3 rows"):
        Ragged.from_rows([[1, 2], [], [3]])[row]


def test_no_rows():
    assert len(Ragged.from_rows([])) == 0


def test_take_ranges_copies_overlapping_and_empty_ranges():
    values = np.arange(10, 20, dtype=np.int32)
    taken = take_ranges(values, np.array([0, 5, 1]), np.array([3, 5, 2]))
    assert [row.tolist() for row in taken] == [[10, 11, 12], [], [11]]
    taken.values[0] = 99
    assert values[0] == 10


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2**31], "expected integers that fit int32, got 2147483648"),
        ([5, -(2**31) - 1], "expected integers that fit int32, got -2147483649"),
        (np.array([2**64 - 1], np.uint64), "expected integers that fit int32, got 18446744073709551615"),
        ([2**70], "expected a sequence of integers, got object"),
        ([1.0], "expected a sequence of integers, got float64"),
        ([True], "expected a sequence of integers, got bool"),
        (["1"], "expected a sequence of integers, got <U1"),
        ([[1]], r"expected a sequence of integers, got int64 of shape \(1, 1\)"),
        ([1, [2]], "expected a sequence of integers, got a nested one"),
    ],
    ids=str,
)
def test_values_that_int32_cannot_hold_are_refused(row: Any, message: str):
    with pytest.raises(DataError, match=rf"rows\[1\]: {message}"):
        Ragged.from_rows([[1], row])


def test_values_of_another_type_are_held_if_they_fit():
    rows = Ragged.from_rows([np.array([7], np.uint64), [], np.array([2**31 - 1, -(2**31)])])
    assert [row.tolist() for row in rows] == [[7], [], [2**31 - 1, -(2**31)]]
    assert Ragged(np.array([7]), np.array([0, 1])).values.dtype == np.int32
    with pytest.raises(DataError, match="values: expected integers that fit int32, got 4294967296"):
        Ragged(np.array([2**32]), np.array([0, 1]))
