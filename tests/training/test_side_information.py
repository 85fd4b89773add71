"""Runs with side information on items: it helps items that training has not seen, is served by either framework, and is
resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, DataError, TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.data.catalog import Catalog
from cce_minus.recsys.data.item_vectors import initial_rows, read_vectors
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.side_information import side_information
from safetensors.numpy import load_file
from typer.testing import CliRunner

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]

GENRES, PER_GENRE, NEW = 8, 10, 2


@pytest.fixture(scope="module")
def genres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who stay in one of eight genres of ten items, two of which come last in a history and nowhere else; with
    the items' genres, vectors that are near each other within a genre, and numbers that tell of it."""
    rng = np.random.default_rng(0)
    users, length, items = 96, 8, GENRES * PER_GENRE
    genre = np.arange(users) % GENRES
    events = rng.integers(NEW, PER_GENRE, (users, length))
    events[:, -1] = np.arange(users) // GENRES % NEW
    folder = tmp_path_factory.mktemp("genres")
    columns = {
        "user_id": np.repeat(np.arange(users), length),
        "item_id": (events + genre[:, None] * PER_GENRE).ravel(),
        "timestamp": np.tile(np.arange(length), users),
    }
    pq.write_table(pa.table(columns), folder / "events.parquet")
    lines = [f"{item},{item // PER_GENRE}|all,{_price(item)},{_weight(item)}" for item in range(items)]
    (folder / "items.csv").write_text("\n".join(["item_id,genre,price,weight", *lines]) + "\n")
    centres = rng.normal(size=(GENRES, 12))
    vectors = np.repeat(centres, PER_GENRE, axis=0) + 0.1 * rng.normal(size=(items, 12)) + 3
    pq.write_table(pa.table({"item_id": np.arange(items), "vector": vectors.tolist()}), folder / "vectors.parquet")
    return folder


def _price(item: int) -> str:
    """Of each genre more than of the one before, over seven powers of ten; one in ten is unknown."""
    return "" if item % PER_GENRE == 9 else f"{10 ** (item // PER_GENRE) * (1 + item % PER_GENRE / 2)}"


def _weight(item: int) -> float:
    """The first genre's items are light, the last one's heavy, all others about the same."""
    return {0: 1.5, GENRES - 1: 4.5}.get(item // PER_GENRE, 3 + item % 2 / 10)


def of_genres(folder: Path) -> dict[str, Any]:
    return {"data": str(folder / "events.parquet"), "max_length": 8, "metrics_at": "10,20", "negatives": "all"}


def categories(folder: Path) -> dict[str, Any]:
    return {"item_features": str(folder / "items.csv"), "feature_columns": "genre"}


def vectors(folder: Path) -> dict[str, Any]:
    return {"item_vectors": str(folder / "vectors.parquet")}


def test_items_that_training_has_not_seen_are_found_by_their_features(train: Train, make_config: Make, genres: Path):
    options = of_genres(genres) | {"epochs": 10, "patience": 10}
    plain = train(make_config(out="plain", **options)).test["hr@20"]
    assert plain < 0.3
    # The second in bf16, where the rows stay float32.
    for name, side in {
        "categories": categories(genres),
        "vectors": vectors(genres) | {"item_vectors_dim": 7, "precision": "bf16"},
    }.items():
        got = train(make_config(out=name, **options, **side)).test["hr@20"]
        assert got > 0.7, name


def test_items_that_training_has_not_seen_are_found_by_their_numbers(train: Train, make_config: Make, genres: Path):
    options = of_genres(genres) | {"epochs": 10, "patience": 10}
    assert train(make_config(out="plain", **options)).test["hr@20"] < 0.1
    options["item_features"] = str(genres / "items.csv")
    bins = {"numeric_columns": "price", "numeric_as": "quantiles", "numeric_bins": GENRES}
    assert train(make_config(out="bins", **options, **bins)).test["hr@20"] > 0.5
    # A line tells its ends from all else: the items of two genres of eight.
    got = train(make_config(out="line", **options, numeric_columns="weight")).test["hr@20"]
    assert got > 0.9 * 2 / GENRES


def test_a_run_is_served_by_both_frameworks_without_its_files(
    train: Train, framework: str, make_config: Make, genres: Path
):
    import importlib

    side = [genres / "copy.csv", genres / "copy.parquet"]
    side[0].write_bytes((genres / "items.csv").read_bytes())
    side[1].write_bytes((genres / "vectors.parquet").read_bytes())
    files = {"item_features": str(side[0]), "feature_columns": "genre", "item_vectors": str(side[1])}
    files |= {"numeric_columns": "price"}
    config = make_config(epochs=1, **of_genres(genres), **files)
    result = train(config)
    for file in side:
        file.unlink()
    tables = []
    for name in ("torch", "jax"):
        app = importlib.import_module(f"cce_minus.{name}_impl.cli").app
        common = ["--run", config.out, "--device", "cpu"]
        output = Path(config.out) / "top.json"
        served = CliRunner().invoke(app, ["recommend", *common, "--user", "3", "--user", "4", "--output", str(output)])
        assert served.exit_code == 0, served.output
        tables.append(json.loads(output.read_text()))
        measured = CliRunner().invoke(app, ["evaluate", *common, "--json"])
        assert json.loads(measured.output) == pytest.approx(result.test)
        to = Path(config.out) / f"export-{name}"
        exported = CliRunner().invoke(app, ["export", *common, "--to", str(to), "--index", "none"])
        assert exported.exit_code == 0, exported.output
        weights, vectors = load_file(result.weights), load_file(to / "items.safetensors")["vectors"]
        expected = weights["item_table"] + weights["item_features"] @ weights["feature_projection"]
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    expected = [{**row, "scores": pytest.approx(row["scores"], rel=1e-5)} for row in tables[0]]
    assert tables[1] == expected


def test_a_resumed_run_with_features_equals_an_uninterrupted_one(train: Train, make_config: Make, genres: Path):
    options = of_genres(genres) | categories(genres) | vectors(genres)
    options |= {"numeric_columns": "price,weight", "weight_decay": 0.1}
    whole = train(make_config(out="whole", epochs=3, **options))
    train(make_config(out="parts", epochs=2, **options))
    parts = train(make_config(out="parts", epochs=3, resume=True, **options))
    assert (parts.losses, parts.test, parts.valid) == (whole.losses, whole.test, whole.valid)
    tensors = [load_file(result.weights) for result in (parts, whole)]
    for name, tensor in tensors[1].items():
        np.testing.assert_array_equal(tensors[0][name], tensor, err_msg=name)
    # Constants: neither the optimiser nor its decay has touched them.
    interactions, _ = prepare_data(make_config(**options))
    np.testing.assert_array_equal(
        tensors[0]["item_features"], side_information(make_config(**options), interactions).features
    )


def test_the_initial_table_is_made_of_principal_components(train: Train, make_config: Make, genres: Path):
    config = make_config(
        epochs=1, learning_rate=1e-30, item_vectors_as="initial", **of_genres(genres), **vectors(genres)
    )  # so slow that the table stays where it starts
    tensors = load_file(train(config).weights)
    known = read_vectors(genres / "vectors.parquet", Catalog(np.arange(80)), item_column="item_id")
    np.testing.assert_allclose(tensors["item_table"], 0.02 * initial_rows(*known, dim=16), rtol=1e-5, atol=1e-8)
    assert np.abs(tensors["item_table"][:, 12:]).max() < 1e-20
    assert tensors["item_table"][:, :12].std() == pytest.approx(0.02, rel=1e-3)
    assert "item_features" not in tensors


def test_weights_and_runs_of_other_features_are_refused(train: Train, make_config: Make, genres: Path, tmp_path: Path):
    options = of_genres(genres) | {"epochs": 1}
    items = tmp_path / "items.csv"
    items.write_bytes((genres / "items.csv").read_bytes())
    changing = {"item_features": str(items), "feature_columns": "genre"}
    first = train(make_config(out="first", **options, **changing))
    train(make_config(out="second", init_weights=first.weights, **options, **changing))
    with pytest.raises(ConfigError, match="config num_features: expected 0, got 9"):
        train(make_config(out="third", init_weights=first.weights, **options))
    items.write_text(items.read_text().replace("\n5,0|all", "\n5,1|all"))
    with pytest.raises(ConfigError, match=r"init_weights: expected the item features \(80, 9\) of this run's files"):
        train(make_config(out="third", init_weights=first.weights, **options, **changing))
    with pytest.raises(ConfigError, match=r"resume: expected the item features \(80, 9\) of this run's files"):
        train(replace(make_config(out="first", **options, **changing), epochs=2, resume=True))
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        train(make_config(out="third", **options, item_features="nowhere.csv", feature_columns="genre"))
    assert not (tmp_path / "third").exists()


def gradients(framework: str, config: TrainConfig) -> dict[str, np.ndarray]:
    """The gradients of the first batch's loss by parameter, and the features under their name."""
    interactions, split = prepare_data(config)
    side, batch = side_information(config, interactions), next(epoch_batches(config, split, 0))
    shape = ModelConfig.from_train(config, split.num_items, side.num_features)
    if framework == "torch":
        import torch
        from cce_minus.torch_impl import models
        from cce_minus.torch_impl.training import objective

        model = models.build_model(shape).eval()
        model.start_items(side)
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        objective.training_loss(model, inputs, targets, 7, objective=objective.objective_of(config, split)).backward()
        got = {
            name: parameter.grad.numpy() for name, parameter in model.named_parameters() if parameter.grad is not None
        }
    else:
        from cce_minus.jax_impl import models
        from cce_minus.jax_impl.training import objective
        from flax import nnx

        model = models.build_model(shape, rngs=nnx.Rngs(0))
        model.start_items(side)
        chosen, seed = objective.objective_of(config, split), objective.step_seed(config, 0)
        found = nnx.grad(
            lambda model: objective.training_loss(model, batch.inputs, batch.targets, seed, objective=chosen)
        )(model)
        got = {".".join(map(str, path)): np.asarray(value[...]) for path, value in nnx.to_flat_state(found)}
    assert "item_features" not in got
    return got | {"features": side.features}


@pytest.mark.parametrize(
    "options", [{"negatives": "all"}, {"negatives": "hard", "pool_size": 40}, {"loss": "sce", "negatives": "uniform"}]
)
def test_the_projection_learns_what_the_rows_learn(
    framework: str, make_config: Make, genres: Path, options: dict[str, Any]
):
    got = gradients(framework, make_config(**of_genres(genres) | options, **vectors(genres)))
    # rows = table + features @ projection: the rows' gradient is the table's.
    expected = got["features"].T.astype(np.float64) @ got["item_table"]
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(got["feature_projection"], expected, rtol=1e-4, atol=1e-6)
