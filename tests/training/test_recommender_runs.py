"""The folder of a recommender's run: what is kept there, what is refused, and what goes along with it."""

from __future__ import annotations

import gc
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError, DivergedError
from cce_minus.recsys.serving.forget import forget
from cce_minus.recsys.serving.recommender import BaseRecommender
from cce_minus.recsys.serving.served_run import ServedRun
from cce_minus.torch_impl import Recommender as TorchRecommender

from tests.training.commands import SMALL


def test_what_is_saved_serves_without_its_maker(recommender: type[BaseRecommender], table: pa.Table, tmp_path: Path):
    model = recommender(**SMALL).fit(table)
    folder = model.run_
    expected = model.evaluate()
    model.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*-checkpoints"))
    with pytest.raises(ConfigError, match="folder: expected a new folder"):
        model.save(tmp_path / "saved")
    del model
    gc.collect()  # what was raised may hold it in a circle
    assert not folder.exists()  # a temporary one goes with its object
    (tmp_path / "saved").rename(tmp_path / "moved")
    assert recommender.load(tmp_path / "moved", data=table, device="cpu").evaluate() == expected
    loaded = recommender.load(tmp_path / "moved", device="cpu")
    assert loaded.evaluate() == expected
    again = loaded.fit(table)  # a new run in a folder of its own
    assert again.run_ != tmp_path / "moved"
    assert again.evaluate() == expected


def test_a_run_keeps_the_log_that_it_was_fitted_on(recommender: type[BaseRecommender], table: pa.Table, tmp_path: Path):
    """Whatever is refused, and whatever else lies in its folder."""
    out = tmp_path / "run"
    model = recommender(**SMALL, out=str(out)).fit(table)
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = recommender(**{**SMALL, "epochs": 3}, out=str(out), resume=True)
    for other in (
        table.slice(0, 500),
        table.set_column(2, "timestamp", pa.array([time + 1 for time in table["timestamp"].to_pylist()])),
    ):
        with pytest.raises(ConfigError, match="resume: expected the log that the run was fitted on, got another table"):
            again.fit(other)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    assert len(again.fit(table).result_.losses) == 3
    # a log of somebody's own that has the name
    mine = tmp_path / "mine" / "fitted_events.parquet"
    mine.parent.mkdir()
    pq.write_table(table, mine)
    with pytest.raises(ConfigError, match=r"out: expected a folder without fitted_events.parquet, got"):
        recommender(**SMALL, out=str(mine.parent)).fit(table.slice(0, 600))
    assert pq.read_table(mine).equals(table)
    # a model that is open while its files change
    model.evaluate()
    opened = recommender.load(out, device="cpu")
    forget(ServedRun.open(out), items=["i03"])
    with pytest.raises(ConfigError, match="run: expected weights of 40 items, as when it was opened, got"):
        opened.recommend(users=[3])


def test_what_is_popular_was_so_in_training(recommender: type[BaseRecommender], table: pa.Table, tmp_path: Path):
    model = recommender(**SMALL, out=str(tmp_path / "run")).fit(table)
    expected = model.recommend(users=["new"], k=3, unknown_users="popular")
    small = pa.table({"user_id": [1, 1], "item_id": ["i05", "i06"], "timestamp": [1, 2]})
    found = model.recommend(users=["new"], k=3, unknown_users="popular", log=small)
    assert found["item_id"].equals(expected["item_id"])
    assert len(model.recommend(users=[1], k=3, log=small)) == 3


def test_what_a_run_held_out_is_measured_alone(recommender: type[BaseRecommender], table: pa.Table, tmp_path: Path):
    model = recommender(**SMALL, train_on_valid=True).fit(table)
    with pytest.raises(ConfigError, match="part: expected one that the run held out, got valid of a run with train_on"):
        model.evaluate(part="valid")
    assert pickle.loads(pickle.dumps(recommender(**SMALL))).get_params() == recommender(**SMALL).get_params()
    with pytest.raises(ConfigError, match="pickle: expected a recommender before fit, got a fitted one; save and load"):
        pickle.dumps(model)


def test_titles_and_items_come_with_a_saved_model(recommender: type[BaseRecommender], data: Path, tmp_path: Path):
    """Their files are not read again, and a new fit reads them."""
    files = {name: tmp_path / f"{name}.parquet" for name in ("titles", "items")}
    for path in files.values():
        shutil.copyfile(data / "titles.parquet", path)
    options = {name: str(path) for name, path in files.items()}
    recommender(**SMALL, **options).fit(str(data / "events.parquet")).save(tmp_path / "saved")
    moved = [path.rename(path.with_suffix(".away")) for path in files.values()]
    loaded = recommender.load(tmp_path / "saved", device="cpu")
    assert loaded.recommend(users=[3], k=2)["title"].null_count == 0
    assert loaded.get_params()["titles"] == str(files["titles"])
    with pytest.raises(ValueError, match=r"(titles|items)\.parquet"):
        loaded.fit(str(data / "events.parquet"))
    assert moved


def test_titles_go_on_from_day_to_day(recommender: type[BaseRecommender], data: Path, table: pa.Table, tmp_path: Path):
    first, second = (str(tmp_path / day) for day in ("first", "second"))
    recommender(**SMALL, titles=str(data / "titles.parquet"), out=first).fit(table)
    new = pa.table({"user_id": [0, 1], "item_id": ["i77", "i77"], "timestamp": [99, 99]})
    model = recommender(**SMALL, from_run=first, out=second).fit(pa.concat_tables([table, new]))
    catalog = ServedRun.open(second).catalog
    assert catalog.names(catalog.ids(["i01", "i77"])) == ["Title of i01", "i77"]
    assert set(model.recommend(users=[3])["title"].to_pylist()) <= set(catalog.titles or [])


def test_a_fit_that_fails_leaves_the_one_before(
    recommender: type[BaseRecommender], table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = recommender(**SMALL).fit(table)
    expected = model.evaluate()
    with pytest.raises(DataError, match=r"log: expected one column 'item_id', got 0 among 'user_id', 'timestamp'"):
        model.fit(table.drop_columns(["item_id"]))
    with pytest.raises(DataError, match=r"log: expected a path, an Arrow table, a data frame or a mapping of columns"):
        model.fit(3)
    assert model.evaluate() == expected
    out = tmp_path / "deep" / "run"
    for log in (3, table.drop_columns(["timestamp"]), table.slice(0, 1)):
        with pytest.raises(DataError):
            recommender(**SMALL, out=str(out)).fit(log)
        assert not out.parent.exists()

    def diverges(self: BaseRecommender, config: Any, callbacks: Any) -> Any:
        (Path(config.out) / "config.json").touch()
        raise DivergedError("loss")

    monkeypatch.setattr(recommender, "_train", diverges)
    with pytest.raises(DivergedError):
        recommender(**SMALL, out=str(out)).fit(table)
    assert (out / "fitted_events.parquet").exists()  # a run that can be resumed
    with pytest.raises(ConfigError, match="out: expected a folder without a run"):
        recommender(**SMALL, out=str(out)).fit(table.slice(0, 1))
    assert pq.read_table(out / "fitted_events.parquet").equals(table)


def test_a_log_in_memory_is_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As of JAX's processes, in test_jax_hosts.py: each would write it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"^log: expected a path that all processes read, got a table in memory"):
        TorchRecommender(out=str(out)).fit({"user_id": [1], "item_id": [1], "timestamp": [1]})
    assert not out.exists()
