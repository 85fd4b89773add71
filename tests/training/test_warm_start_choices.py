"""What a run that starts from an earlier one takes of its side information, and which runs it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.recsys.run.checkpoint_file import NAME

from tests.training.commands import call, error_of
from tests.training.days import OPTIMIZERS, load_weights, new_rows, start_of, todays_labels, untrained_run

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]


def write_items(folder: Path) -> dict[str, Any]:
    """A file of kinds, whose order by how many items have them is another one today, and its options."""
    kinds = "a" * 16 + "b" * 14 + "c" * 10 + "d" * 5
    lines = [f"{item},{kind}|all" for item, kind in enumerate(kinds)]
    (folder / "items.csv").write_text("\n".join(["item_id,kind", *lines]) + "\n")
    return {"item_features": str(folder / "items.csv"), "feature_columns": "kind"}


@pytest.mark.parametrize("optimizer", ["adamw", "lazy-adam"])
def test_features_are_found_by_their_names(
    framework: str, make_day: Make, tmp_path: Path, optimizer: str
):  # fmt: skip
    options = write_items(tmp_path) | OPTIMIZERS[optimizer]
    kept = untrained_run(framework, make_day("yesterday", **options))
    run = Path(make_day("yesterday").out)
    names = json.loads((run / "features.json").read_text())
    assert names == [f"kind={kind}" for kind in ("all", "a", "b", "c")]
    today = [f"kind={kind}" for kind in ("all", "b", "a", "c", "d")]
    got, state = start_of(framework, make_day("today", from_run=str(run), **options))
    assert (got["item_features"] > 0).sum(axis=0).tolist() == [39, 14, 10, 10, 5]
    before = load_weights(run / "best.safetensors")["feature_projection"]
    for name in names:
        np.testing.assert_array_equal(got["feature_projection"][today.index(name)], before[names.index(name)])
    assert np.abs(got["feature_projection"][4]).max() < 0.1  # as in a new model
    of_projection = [name for name in state if state[name].shape == (5, 16) and "optimizer" in name]
    assert len(of_projection) == 2
    for name in of_projection:
        assert not state[name][4].any()
        np.testing.assert_array_equal(state[name][[today.index(each) for each in names]], kept[name])


def test_vectors_are_the_same_features_day_after_day(framework: str, make_day: Make, tmp_path: Path):
    """Their mean and their scale follow from the day's items; another file's are refused."""
    vectors = np.random.default_rng(2).normal(size=(45, 4))
    options = {"item_vectors": str(tmp_path / "vectors.parquet")}

    def write(of_items: np.ndarray) -> None:
        pq.write_table(pa.table({"item_id": np.arange(45), "vector": of_items.tolist()}), tmp_path / "vectors.parquet")

    write(vectors)
    kept = untrained_run(framework, make_day("yesterday", **options))
    run = Path(make_day("yesterday").out)
    got, state = start_of(framework, make_day("today", from_run=str(run), **options))
    before = load_weights(run / "best.safetensors")
    assert before["item_features"].shape == (40, 4)
    assert got["item_features"].shape == (39, 4)
    np.testing.assert_array_equal(got["feature_projection"], before["feature_projection"])
    of_projection = [name for name in state if name.endswith("feature_projection") and "optimizer" in name]
    assert of_projection
    for name in of_projection:
        np.testing.assert_array_equal(state[name], kept[name], err_msg=name)
    write(vectors[:, [1, 0, 2, 3]])
    with pytest.raises(ConfigError, match=r"^item_vectors: expected columns that mean what they did"):
        start_of(framework, make_day("other", from_run=str(run), **options))
    (run / "features.json").unlink()
    with pytest.raises(
        ConfigError, match=r"from_run: expected features\.json in .*, which a run of an earlier version writes"
    ):
        start_of(framework, make_day("other", from_run=str(run), **options))
    assert not Path(make_day("other").out).exists()


def test_new_items_start_from_their_vectors(
    framework: str, make_day: Make, earlier: dict[str, Path], days: tuple[Path, Path], tmp_path: Path
):
    today, vectors = todays_labels(days), np.random.default_rng(1).normal(size=(44, 5))
    pq.write_table(pa.table({"item_id": np.arange(44), "vector": vectors.tolist()}), tmp_path / "vectors.parquet")
    options = {"item_vectors": str(tmp_path / "vectors.parquet"), "item_vectors_as": "initial"}
    got, _ = start_of(framework, make_day("today", from_run=str(earlier[framework]), **options))
    before = load_weights(earlier[framework] / "best.safetensors")["item_table"]
    new = new_rows(before, earlier[framework], days[1], vectors=[str(item) for item in range(44)])
    np.testing.assert_allclose(got["item_table"][today.index("44")], new["44"], rtol=1e-5)  # which has no vector
    np.testing.assert_array_equal(got["item_table"][today.index("39")], before[39])
    started = got["item_table"][[today.index(str(item)) for item in range(40, 44)]]
    assert (started[:, :5] != 0).all()
    assert not started[:, 5:].any()


def test_other_models_and_items_are_refused(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path], tmp_path: Path
):
    run = str(earlier[framework])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dim": 32}, r"^dim: expected 16 as in the run of from_run, .*, got 32"),
        ({"num_blocks": 2}, "^num_blocks: expected 1 as in"),
        ({"num_heads": 2}, "^num_heads: expected 1 as in"),
        ({"model": "ligr"}, "^model: expected sasrec as in"),
        ({"item_vectors": "v.parquet"}, "^item_vectors: expected no features as in .* got features"),
        ({"from_run": str(tmp_path)}, r"^from_run: expected the folder of a training run .* without config\.json"),
        ({"init_weights": "w.safetensors"}, "^init_weights: expected none with from_run"),
        ({"from_run": ""}, "^from_run: expected a non-empty text"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            train(make_day("today", **({"from_run": run} | options)))
    with pytest.raises(ConfigError, match=r"^gone_items: expected its default drop with no from_run"):
        make_day("today", gone_items="keep")
    table = pq.read_table(make_day("today", from_run=run).data)
    others = [f"x{item}" for item in table["item_id"].to_pylist()]
    pq.write_table(table.set_column(1, "item_id", pa.array(others)), tmp_path / "others.parquet")
    with pytest.raises(ConfigError, match=r"^from_run: expected a run with some of the 39 items"):
        train(make_day("today", from_run=run, data=str(tmp_path / "others.parquet")))
    assert not Path(make_day("today").out).exists()


def test_initial_weights_of_other_items_are_refused(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path], tmp_path: Path
):
    """As many of them, which their places would mix up; with the same items in another order too. A run that has begun
    needs them no more."""
    run = shutil.copytree(earlier[framework], tmp_path / "run")
    weights = str(run / "best.safetensors")
    same = make_day("same", init_weights=weights)
    losses = train(same).losses
    labels = pq.read_table(run / "catalog.parquet")["item"].to_pylist()
    for number, changed in enumerate(([*labels[:-1], 99], labels[::-1])):
        pq.write_table(pa.table({"item": changed}), run / "catalog.parquet")
        with pytest.raises(ConfigError, match=r"^init_weights: expected weights of the 40 items .*\(--from"):
            train(make_day(f"other{number}", init_weights=weights))
        assert not Path(make_day(f"other{number}").out).exists()
    assert train(replace(same, resume=True)).losses == losses
    (Path(same.out) / f"{framework}-checkpoints" / NAME).unlink()
    with pytest.raises(ConfigError, match=r"^init_weights: expected weights of the 40 items"):
        train(replace(same, resume=True))


def test_the_command_takes_from(
    framework: str, make_day: Make, earlier: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(earlier[framework].parent)
    config = make_day("today", from_run=framework)
    arguments = ["--data", config.data, "--max-length", 12, "--dim", 16, "--epochs", 1, "--num-negatives", 20]
    result = call(framework, "train", "--from", framework, "--out", config.out, *arguments, "--group-size", 16)
    assert result.exit_code == 0, result.output
    assert TrainConfig.read(Path(config.out) / "config.json").from_run == str(earlier[framework])
    again = call(framework, "train", "--from", "nowhere", "--out", config.out + "2", *arguments)
    assert "from_run: expected the folder of a training run" in error_of(again)
