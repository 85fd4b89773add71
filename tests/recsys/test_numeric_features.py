"""Numbers of items as features, against values computed by hand."""

from __future__ import annotations

import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError, Interactions, TrainConfig
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.item_rows import read_item_rows
from cce_minus.recsys.data.numeric_features import numbers, quantile_bins, standardized
from cce_minus.recsys.run.side_information import VECTOR, SideInformation, side_information
from safetensors.numpy import save_file

CATALOG = Catalog(np.array(["a", "b", "c", "d"], dtype=object))
NAN = np.nan


def read(path: Path) -> np.ndarray:
    return numbers(read_item_rows(path, CATALOG, item_column="item_id", columns=["price"]), "price")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [-300.0, 2.5, None, 7.0]),
        (pa.float32(), [-300.0, 2.5, NAN, 7.0]),
        (pa.decimal128(5, 2), [Decimal("-300"), Decimal("2.50"), None, Decimal("7")]),
        (pa.string(), ["-3e2", " 2.5", " ", "+7"]),
        (pa.dictionary(pa.int32(), pa.string()), ["-3e2", "2.50", None, "7."]),
        (pa.dictionary(pa.int32(), pa.float64()), [-300.0, 2.5, None, 7.0]),
    ],
)
def test_every_type_of_a_number_is_read(tmp_path: Path, kind: pa.DataType, values: list[Any]):
    table = pa.table({"item_id": ["c", "a", "b", "elsewhere"], "price": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "items.parquet")
    np.testing.assert_array_equal(read(tmp_path / "items.parquet"), [2.5, NAN, -300, NAN])


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_text_files_and_repeated_items(tmp_path: Path, name: str):
    """CSV cells are text as written; ``b`` has its number in the second of its rows, ``a`` the same in two."""
    rows = [("b", ""), ("a", "007"), ("d", "NaN"), ("b", "2.5"), ("a", "7.0"), ("z", "1e3")]
    lines = ["item_id,price", *(f"{item},{price}" for item, price in rows)]
    if name == "items.jsonl":
        lines = [f'{{"item_id": "{item}", "price": "{price}"}}' for item, price in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    np.testing.assert_array_equal(read(tmp_path / name), [7, 2.5, NAN, NAN])


def test_integers_beyond_what_floats_count(tmp_path: Path):
    table = pa.table({"item_id": ["a", "b"], "price": [2**62 + 1, -5]})
    pq.write_table(table, tmp_path / "items.parquet")
    np.testing.assert_array_equal(read(tmp_path / "items.parquet"), [2.0**62, -5, NAN, NAN])


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        (["1", "free", "x"], "must hold numbers such as 12.5, got 'free' in row 2"),
        (["1", "2", "1,50"], "must hold numbers such as 12.5, got '1,50' in row 3"),
        (["NA", "2", "3"], "must hold numbers such as 12.5, got 'NA' in row 1"),
        (["1", "-inf", "2"], "must hold finite numbers, got '-inf' in row 2"),
        ([1.0, 2.0, np.inf], "must hold finite numbers, got inf in row 3"),
        ([True, False, True], "must hold numbers or text that writes them, got bool"),
        ([[1], [2], [3]], "must hold numbers or text that writes them, got list"),
        ([None, None, 5], "has a value for none of the 4 items of the data"),
        ([4, 4, 5], "must hold numbers that differ from item to item, got 4.0 for all 2 items that have one"),
    ],
)
def test_unusable_numbers_name_the_file_the_column_and_a_row(tmp_path: Path, prices: list[Any], message: str):
    pq.write_table(pa.table({"item_id": ["a", "b", "elsewhere"], "price": prices}), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=rf"items\.parquet: column 'price' {message}"):
        read(tmp_path / "items.parquet")


def test_two_numbers_of_one_item_are_refused(tmp_path: Path):
    (tmp_path / "items.csv").write_text("item_id,price\nz,3\na,4\nb,\nb,6\na,5\n")
    with pytest.raises(DataError, match=r"must hold one number an item, got 4\.0 and, in row 5, 5\.0 of item 'a'"):
        read(tmp_path / "items.csv")


def test_standardized_values():
    # mean 4, variance (9 + 1 + 16 + 4) / 6 = 5
    got = standardized(np.array([1.0, 5, 8, 4, 2, 4]))
    assert (got.shape, got.dtype) == ((6, 1), np.float32)
    np.testing.assert_allclose(got[:, 0], np.array([-3, 1, 4, 0, -2, 0]) / np.sqrt(5), rtol=1e-6)


def test_a_missing_number_is_the_mean_and_said():
    # of 1, 3 and 5: mean 3, variance 8 / 3
    unit = np.sqrt(3 / 2)
    expected = [[-unit, 0], [0, 1], [0, 0], [unit, 0], [0, 1]]
    np.testing.assert_allclose(standardized(np.array([1, NAN, 3, 5, NAN])), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e300, 5e-324])
def test_numbers_of_any_size_are_standardized(scale: float):
    np.testing.assert_allclose(standardized(np.array([1, 3]) * scale)[:, 0], [-1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "bins", "expected"),
    [
        ([40, 10, 20, 30], 2, [1, 0, 0, 1]),
        ([40, 10, 20, 30], 4, [3, 0, 1, 2]),
        ([40, 10, 20, 30], 1000, [3, 0, 1, 2]),
        ([1, 2, 3, 4, 1e9], 2, [0, 0, 1, 1, 1]),  # 2 or 3 items below: as near, hence the lower
        ([0, 0, 0, 0, 0, 0, 0, 5, 6, 7], 5, [0, 0, 0, 0, 0, 0, 0, 1, 2, 2]),  # edges at 7, 7, 7, 8 of 2, 4, 6, 8 items
        ([5, 5, 5, 5, 5, 1], 3, [1, 1, 1, 1, 1, 0]),
        ([5, 5, 5, 5, 5, 9], 3, [0, 0, 0, 0, 0, 1]),
        ([NAN, 2, NAN, 1], 2, [None, 1, None, 0]),
    ],
)
def test_quantile_bins(values: list[float], bins: int, expected: list[int | None]):
    got = quantile_bins(np.array(values), bins)
    wanted = np.zeros((len(values), 1 + max(bin for bin in expected if bin is not None)), np.float32)
    for item, bin in enumerate(expected):
        if bin is not None:
            wanted[item, bin] = 1
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


def test_different_values_make_bins_of_equal_size():
    values = np.exp(np.random.default_rng(0).normal(size=1000) * 5)
    got = quantile_bins(values, 10)
    np.testing.assert_array_equal(got.sum(axis=0), np.full(10, 100))
    np.testing.assert_array_equal(got.argmax(axis=1), values.argsort().argsort() // 100)


def test_a_run_puts_numbers_between_categories_and_vectors(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Of the catalog's items alone: 9000 is the price of another."""
    (tmp_path / "items.csv").write_text("item_id,kind,price,size\n7,x,1,4\n8,x,3,4\n9,x,5,6\n10,x,9000,9000\n")
    pq.write_table(pa.table({"item_id": [7, 8], "vector": [[5.0], [3.0]]}), tmp_path / "vectors.parquet")
    ids = np.zeros(4, np.int32)
    labels = np.array([7, 8, 9, 11])
    events = Interactions(ids, np.arange(4, dtype=np.int32), np.arange(4), np.array([1]), labels)
    files: dict[str, Any] = {"item_features": str(tmp_path / "items.csv"), "numeric_columns": "price, size"}
    unit, low, high = np.sqrt(3 / 2), -np.sqrt(1 / 2), np.sqrt(2)
    numeric = [[-unit, 0, low, 0], [0, 0, low, 0], [unit, 0, high, 0], [0, 1, 0, 1]]
    vectors = str(tmp_path / "vectors.parquet")
    side = side_information(TrainConfig(**files, feature_columns="kind", item_vectors=vectors), events)
    np.testing.assert_allclose(side.features, np.hstack([[[1], [1], [1], [0]], numeric, [[1], [-1], [0], [0]]]), 1e-6)
    assert side.columns == ("kind=x", "price", "price, missing", "size", "size, missing", f"{VECTOR}0")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        side = side_information(TrainConfig(**files, numeric_as="quantiles", numeric_bins=3), events)
    np.testing.assert_array_equal(side.features, [[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1], [0] * 5])
    bins = [f"price, bin {place} of 3" for place in (1, 2, 3)] + [f"size, bin {place} of 2" for place in (1, 2)]
    assert side.columns == tuple(bins)
    assert caplog.messages == [
        f"{tmp_path / 'items.csv'}: 1 of 4 items have no features",
        f"{tmp_path / 'items.csv'}: column 'size': 2 bins in place of 3, as edges are equal",
    ]


def test_numbers_of_a_resumed_run_may_round_differently_and_no_more(tmp_path: Path):
    """Beside one large number, the others' features hardly differ; components of vectors may differ by as little."""
    prices = np.array([1.0, 2, 3, 1e6])
    features = np.hstack([standardized(prices), [[0.1], [0.2], [0.3], [0.4]]]).astype(np.float32)
    save_file({"item_features": features}, tmp_path / "weights.safetensors")

    def compare(prices: np.ndarray, shift: float) -> None:
        side = SideInformation(
            np.hstack([standardized(prices), features[:, 1:] + np.float32(shift)]), None, ("price", f"{VECTOR}0")
        )
        side.require_same(tmp_path / "weights.safetensors", "resume")

    compare(prices * (1 + 1e-9 * np.arange(4)), 5e-4)
    for other, shift in ((np.array([1.0, 2, 100, 1e6]), 0), (prices, 2e-3)):
        with pytest.raises(ConfigError, match=r"resume: expected the item features \(4, 2\) of this run's files"):
            compare(other, shift)
