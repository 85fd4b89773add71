"""Tables cut into parts, a device each, and put together again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from cce_minus.recsys.run import tensor_file
from cce_minus.recsys.run.mapped_rows import MappedRows
from cce_minus.recsys.run.table_shards import mapped_rows_of_shard, rows_of_shard, whole
from cce_minus.recsys.run.tensor_file import Stored


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three or so rows."""
    monkeypatch.setattr(tensor_file, "PIECE", 50)


def in_pieces(array: np.ndarray, sizes: Sequence[int]) -> Stored:
    ends = np.cumsum(sizes)
    return Stored(array.dtype.name, array.shape, lambda: [array[e - n : e] for n, e in zip(sizes, ends, strict=True)])


@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", [(11,), (1, 2, 3, 5), (4, 4, 3)])
def test_parts_are_every_so_many_rows_and_together_the_whole(number: int, sizes: tuple[int, ...], small_pieces: None):
    table = np.arange(44, dtype=np.float32).reshape(11, 4)
    parts = [rows_of_shard(in_pieces(table, sizes), index, number) for index in range(number)]
    for index, part in enumerate(parts):
        np.testing.assert_array_equal(part.array(), table[index::number])
        assert part.shape == part.array().shape
    filled = [np.concatenate([part.array(), np.full((1, 4), np.nan, np.float32)]) for part in parts]
    joined = whole("float32", table.shape, number, lambda first, end: [part[first:end] for part in filled])
    assert number == 7 or len(list(joined.pieces())) > 1
    np.testing.assert_array_equal(joined.array(), table)


def test_a_number_a_row_and_words_of_bfloat16():
    numbers = np.arange(5, dtype=np.uint16)
    source = Stored("bfloat16", (5,), lambda: [numbers])
    parts = [rows_of_shard(source, index, 2).array() for index in range(2)]
    assert [part.tolist() for part in parts] == [[0, 2, 4], [1, 3]]
    padded = [parts[0], np.append(parts[1], np.uint16(9))]
    joined = whole("bfloat16", (5,), 2, lambda first, end: [part[first:end] for part in padded])
    assert joined.array().tolist() == numbers.tolist()
    assert joined.nbytes == 10


def test_mapped_rows_go_to_the_part_that_has_their_place():
    rows = np.arange(4, dtype=np.float32)[:, None]
    source = MappedRows("float32", lambda: iter([(np.array([6, -1, 3, 1], np.int32), rows)]))
    found = np.full(10, -1.0)
    for index in range(3):
        ((places, given),) = mapped_rows_of_shard(source, index, 3).pieces()
        kept = places >= 0
        found[places[kept] * 3 + index] = given[kept, 0]
    assert found.tolist() == [-1, 3, -1, 2, -1, -1, 0, -1, -1, -1]
