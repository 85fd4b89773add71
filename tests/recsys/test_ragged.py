from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import Ragged
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
