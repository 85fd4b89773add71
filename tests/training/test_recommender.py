"""The recommender as an object: what the commands do, from a table in memory as from a file, in either framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError
from cce_minus.recsys.serving.recommender import BaseRecommender
from cce_minus.recsys.serving.served_run import ServedRun
from safetensors.numpy import load_file

from tests.training.commands import SMALL, recommend


def test_a_path_and_tables_in_memory_train_alike(
    recommender: type[BaseRecommender], data: Path, table: pa.Table, tmp_path: Path
):
    pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    categories = table.to_pandas().assign(more=1).astype({"item_id": "category"})
    logs: list[Any] = [
        str(data / "events.parquet"),
        table,
        categories,
        polars.from_pandas(categories),
        table.to_pydict(),
    ]
    fitted = [recommender(**SMALL, out=str(tmp_path / str(place))).fit(log) for place, log in enumerate(logs)]
    assert [model.run_ for model in fitted] == [tmp_path / str(place) for place in range(len(logs))]
    weights = [load_file(model.run_ / "best.safetensors") for model in fitted]
    for model, other in zip(fitted, weights, strict=True):
        assert model.result_.test == fitted[0].result_.test
        assert all(np.array_equal(other[name], array) for name, array in weights[0].items())
    assert pq.read_schema(fitted[2].run_ / "fitted_events.parquet").names == [
        "user_id",
        "item_id",
        "timestamp",
    ]  # and nothing more


def test_a_model_is_loaded_once_and_answers_as_the_commands_do(
    recommender: type[BaseRecommender], runs: dict[str, Path], data: Path, monkeypatch: pytest.MonkeyPatch
):
    loads: list[Path] = []
    load = recommender._load

    def counted(self: BaseRecommender, weights: Path, device: str, precision: str) -> Any:
        loads.append(weights)
        return load(self, weights, device, precision)

    monkeypatch.setattr(recommender, "_load", counted)
    for run in runs.values():
        model = recommender.load(run, device="cpu")
        expected = json.loads((run / "result.json").read_text())
        for part in ("test", "valid"):
            assert model.evaluate(part=part) == pytest.approx(expected[part], abs=1e-6)
        assert model.evaluate(data / "events.parquet") == pytest.approx(expected["test"], abs=1e-6)
        assert set(model.evaluate(metrics_at="5,10", filter_seen=True, test_users=7)) > {"ndcg@5", "ndcg@10"}
        assert model.get_params()["dim"] == 16
    assert loads == [run / "best.safetensors" for run in runs.values()]


def test_recommendations_are_those_of_the_command(
    recommender: type[BaseRecommender], framework: str, runs: dict[str, Path], tmp_path: Path
):
    model = recommender.load(runs["torch"], device="cpu")
    users = [3, 50, 0]
    given = [argument for user in users for argument in ("--user", user)]
    rows = recommend(framework, runs["torch"], tmp_path / "top.json", *given, "--k", 5)
    found = model.recommend(users=np.array(users), k=5)
    assert found.column_names == ["user_id", "rank", "item_id", "title", "score"]
    expected = [
        (row["user_id"], rank, item, name, pytest.approx(score, rel=1e-5))
        for row in rows
        for rank, item, name, score in zip(range(1, 6), row["items"], row["names"], row["scores"], strict=True)
    ]
    assert [tuple(row.values()) for row in found.to_pylist()] == expected
    events = ServedRun.open(runs["torch"]).read_data()[0]
    histories = {str(user): events.item_labels[events.item[events.user == user]] for user in users}
    by_name = model.recommend(sequences=histories, k=5)
    assert by_name.drop_columns(["user_id"]).equals(found.drop_columns(["user_id"]))
    assert by_name["user_id"].to_pylist() == [str(user) for user in users for _ in range(5)]
    by_number = model.recommend(sequences=[history.tolist() for history in histories.values()], k=5)
    assert by_number.drop_columns(["user_id"]).equals(found.drop_columns(["user_id"]))
    everybody = model.recommend(k=5)
    assert len(everybody) == 60 * 5
    of_three = everybody.slice(3 * 5, 5)
    assert of_three.drop_columns(["score"]).equals(found.slice(0, 5).drop_columns(["score"]))
    assert of_three["score"].to_pylist() == pytest.approx(found["score"].to_pylist()[:5], rel=1e-5)


def test_who_is_unknown_is_left_out_or_gets_what_is_popular(
    recommender: type[BaseRecommender], runs: dict[str, Path], table: pa.Table
):
    pytest.importorskip("pandas")
    model = recommender.load(runs["torch"], device="cpu")
    known = model.recommend(users=[3], k=2)
    assert model.recommend(users=[3, 99], k=2, unknown_users="skip").equals(known)
    both = model.recommend(users=[3, 99], k=2, unknown_users="popular")
    assert both["score"].null_count == 2
    rows = both.to_pylist()
    assert [row["user_id"] for row in rows] == [3, 3, 99, 99]
    training = table.to_pandas().groupby("user_id").head(10)["item_id"].value_counts()
    assert [training[row["item_id"]] for row in rows[2:]] == training.head(2).tolist()
    # a day later: a user who is new, and an item that is
    later = pa.concat_tables([
        table, pa.table({"user_id": [99, 99, 99], "item_id": ["i05", "i77", "i06"], "timestamp": [90, 91, 92]})
    ])  # fmt: skip
    new = model.recommend(users=[99], k=2, log=later)
    expected = model.recommend(sequences=[["i05", "i06"]], k=2)
    assert new.drop_columns(["user_id"]).equals(expected.drop_columns(["user_id"]))


def test_few_candidates_make_few_rows(recommender: type[BaseRecommender], runs: dict[str, Path]):
    model = recommender.load(runs["jax"], device="cpu")
    rows = model.recommend(sequences=[["i05", "i06"]], candidates=["i05", "i07", "i09"]).to_pylist()
    assert sorted(row["item_id"] for row in rows) == ["i07", "i09"]
    seen = model.recommend(sequences=[["i05", "i06"]], candidates=["i05", "i07"], filter_seen=False)
    assert sorted(seen["item_id"].to_pylist()) == ["i05", "i07"]


def test_what_cannot_be_recommended_is_told(recommender: type[BaseRecommender], runs: dict[str, Path]):
    model = recommender.load(runs["jax"], device="cpu")
    for options, message in (
        ({"users": [99]}, r"users: expected users of .* got '99', 1 of 1 users; unknown_users = skip or popular"),
        ({"users": "3"}, r"users: expected a list, got '3'"),
        (
            {"users": [3], "sequences": [["i05"]]},
            "sequences: expected no users, no log and no",
        ),
        ({"sequences": []}, "sequences: expected at least one sequence"),
        ({"sequences": ["i05"]}, r"sequences: expected a list, got 'i05'"),
        ({"sequences": 5}, "sequences: expected a list, got 5"),
        (
            {"sequences": [["i05"]], "unknown_users": "skip"},
            "sequences: expected no users, no log and no",
        ),
        ({"users": [3], "skip_unknown": True}, "skip_unknown: only for sequences, got users"),
        ({"users": [3], "filter_seen": "no"}, "filter_seen: expected a value of type bool"),
        ({"users": [3], "k": 2.5}, "k: expected an integer from 1 to 40, got 2.5"),
        ({"sequences": [[1.5]]}, "sequences: expected a list of item ids"),
        ({"sequences": [["i05", "i77"]]}, r"got 1 others, the first 'i77' of user 0; skip_unknown leaves them out"),
        ({"sequences": [["i77"]], "skip_unknown": True}, "expected at least one known item for each user"),
        ({"users": [3], "candidates": ["i77"]}, "candidates: expected items of the catalog .* got 'i77'"),
        ({"users": [3], "k": 41}, "k: expected an integer from 1 to 40, got 41"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            model.recommend(**options)  # type: ignore[arg-type]
    with_unknown = model.recommend(sequences=[["i05", "i77"]], skip_unknown=True)
    assert with_unknown.equals(model.recommend(sequences=[["i05"]]))


def test_items_are_similar_by_the_cosine_of_their_vectors(recommender: type[BaseRecommender], runs: dict[str, Path]):
    model = recommender.load(runs["torch"], device="cpu")
    rows = model.similar_items(["i05", "i00"], k=3).to_pylist()
    catalog = ServedRun.open(runs["torch"]).catalog
    vectors = load_file(runs["torch"] / "best.safetensors")["item_table"]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for place, item in ((0, "i05"), (3, "i00")):
        cosines = vectors @ vectors[catalog.labels.tolist().index(item)]
        best = np.argsort(-cosines)[1:4]
        assert [row["item_id"] for row in rows[place : place + 3]] == [item] * 3
        assert [row["rank"] for row in rows[place : place + 3]] == [1, 2, 3]
        assert [row["similar_item_id"] for row in rows[place : place + 3]] == catalog.labels[best].tolist()
        assert [row["title"] for row in rows[place : place + 3]] == catalog.names(best)
        np.testing.assert_allclose([row["score"] for row in rows[place : place + 3]], cosines[best], rtol=1e-5)
    with pytest.raises(DataError, match=r"items: expected items of the catalog \(40 of them\), got 'i99'"):
        model.similar_items(["i05", "i99"])
    with pytest.raises(ConfigError, match=r"k: expected an integer from 1 to 39, got 40"):
        model.similar_items(["i05"], k=40)


def test_options_are_those_of_training(recommender: type[BaseRecommender]):
    model = recommender(**SMALL)
    assert model.get_params()["epochs"] == 2
    assert model.get_params()["out"] is None
    assert repr(recommender(epochs=3, dim=64, model="ligr")) == "Recommender(epochs=3, model='ligr')"
    assert model.set_params(epochs=3).get_params()["epochs"] == 3
    with pytest.raises(ConfigError, match=r"epoch: no such option; did you mean epochs\?"):
        recommender(epoch=3)
    with pytest.raises(ConfigError, match="data: no such option"):
        recommender(data="x.parquet")
    with pytest.raises(ConfigError, match="epochs: expected a number from 1 up, got 0"):
        model.set_params(epochs=0)
    assert model.get_params()["epochs"] == 3  # what is refused changes nothing
    for ask in (model.evaluate, lambda: model.similar_items(["i05"]), lambda: model.save("x"), lambda: model.run_):
        with pytest.raises(ConfigError, match="expected a recommender after fit or load, got one before"):
            ask()
    with pytest.raises(ConfigError, match="result_: expected a recommender that was fitted"):
        _ = model.result_


def test_scikit_learn_clones_it(recommender: type[BaseRecommender], table: pa.Table):
    clone = pytest.importorskip("sklearn.base").clone
    copy = clone(recommender(**SMALL).fit(table))
    assert copy.get_params() == recommender(**SMALL).get_params()
    with pytest.raises(ConfigError, match="expected a recommender after fit or load"):
        copy.evaluate()
