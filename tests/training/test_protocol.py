"""Runs under other evaluation protocols: final models, filters, more metrics, seen items left out."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import TrainConfig, prepare_data, read_metrics_log
from cce_minus.recsys.run.experiment import held_out
from cce_minus.recsys.serving.measured import evaluate_run
from cce_minus.recsys.serving.served_run import ServedRun
from safetensors.numpy import load_file

from tests.training.commands import call, error_of, recommend

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]


def test_a_final_model_keeps_its_last_epoch(train: Train, make_config: Make):
    result = train(make_config(epochs=3, train_on_valid=True))
    assert (result.best_epoch, result.valid, len(result.losses)) == (2, {}, 3)
    assert result.test["ndcg@10"] > 0
    log = read_metrics_log(Path(result.weights).parent / "metrics.csv")
    assert [set(row) for row in log] == [{"epoch", "step", "train_loss", "seconds"}] * 3


def test_a_final_model_resumes_to_the_same_result(train: Train, make_config: Make):
    whole = train(make_config(out="whole", epochs=3, train_on_valid=True))
    train(make_config(out="parts", epochs=1, train_on_valid=True))
    parts = train(make_config(out="parts", epochs=3, train_on_valid=True, resume=True))
    again = train(make_config(out="parts", epochs=3, train_on_valid=True, resume=True))
    for result in (parts, again):
        assert (result.losses, result.test, result.best_epoch) == (whole.losses, whole.test, 2)
    weights = load_file(whole.weights)
    for name, tensor in load_file(parts.weights).items():
        np.testing.assert_array_equal(tensor, weights[name])


@pytest.mark.parametrize("split", ["global-temporal", "sessions"])
def test_metrics_and_seen_items_reach_log_and_result(train: Train, make_config: Make, split: str):
    options = {"split": split, "split_quantile": 0.7, "valid_fraction": 0.2, "min_item_events": 2}
    result = train(make_config(epochs=2, metrics_at="5,10", filter_seen=True, **options))
    kinds = ("ndcg", "hr", "mrr", "recall", "map", "coverage", "surprisal")
    names = {f"{kind}@{k}" for k in (5, 10) for kind in kinds}
    assert set(result.test) == set(result.valid) == names
    log = read_metrics_log(Path(result.weights).parent / "metrics.csv")
    assert [set(row) for row in log] == [names | {"epoch", "step", "train_loss", "seconds"}] * 2
    assert {name: log[result.best_epoch][name] for name in names} == result.valid


def test_validation_without_seen_items_is_evaluate(train: Train, framework: str, make_config: Make):
    """The metrics of a run are those of ``evaluate`` on the weights that it kept."""
    config = make_config(epochs=3, filter_seen=True)
    result = train(config)
    assert result.best_epoch > 0  # what the first validation keeps is used again
    _, split = prepare_data(config)
    served = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served(Path(result.weights), "cpu")
    got = served.evaluate(split.valid_history, split.valid_target, split, config=config)
    assert got == pytest.approx(result.valid)


def test_a_few_users_are_validated_and_tested(train: Train, framework: str, make_config: Make):
    config = make_config(epochs=2, test_users=7, seed=3)
    result = train(config)
    _, split = prepare_data(config)
    every = len(split.test_target)
    assert every > 7
    load = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served
    run = ServedRun.open(Path(result.weights).parent)
    history, target = held_out(config, split, "test")
    assert len(history) == len(target) == 7
    shares = {round(result.test["hr@10"] * 7, 6), round(result.valid["hr@10"] * 7, 6)}
    assert all(share == int(share) for share in shares)  # of seven users
    assert evaluate_run(run, load, config, "test") == pytest.approx(result.test)
    assert evaluate_run(run, load, config, "valid") == pytest.approx(result.valid)
    everyone = evaluate_run(run, load, replace(config, test_users=0), "test")
    assert everyone == pytest.approx(evaluate_run(run, load, replace(config, test_users=every + 1), "test"))
    assert everyone != pytest.approx(result.test)


def test_a_final_model_of_every_event(train: Train, framework: str, make_config: Make, tmp_path: Path):
    """It trains on what other splits hold out, keeps the last epoch, and is served but not measured."""
    config = make_config(epochs=3, split="none")
    result = train(config)
    assert (result.test, result.valid, result.popularity, result.best_epoch) == ({}, {}, {}, 2)
    out = Path(config.out)
    written = json.loads((out / "result.json").read_text())
    assert (written["test"], written["popularity"], written["weights"]) == ({}, {}, "best.safetensors")
    assert [set(row) for row in read_metrics_log(out / "metrics.csv")] == [
        {"epoch", "step", "train_loss", "seconds"}
    ] * 3
    assert (out / "learning_curve.png").exists()
    fingerprint = json.loads((out / "data.json").read_text())
    assert (fingerprint["train_events"], fingerprint["tested"]) == (60 * 12, 0)
    assert result.summary().startswith("no test: every event was trained on  (3 epochs, ")
    for part, options in (("test", []), ("valid", []), ("test", ["--metrics-at", "5,10"])):
        told = error_of(call(framework, "evaluate", "--run", out, "--part", part, *options))
        assert f"part: expected one that the run held out, got {part} of a run with split = none" in told
    (row,) = recommend(framework, out, tmp_path / "top.json", "--user", "3", "--k", "5")
    assert len(row["items"]) == 5
    train(replace(config, epochs=1, out=str(tmp_path / "parts")))
    parts = train(replace(config, out=str(tmp_path / "parts"), resume=True))
    assert parts.losses == result.losses
    kept = [load_file(each.weights) for each in (result, parts)]
    for name, tensor in kept[0].items():
        np.testing.assert_array_equal(kept[1][name], tensor, err_msg=name)


def test_a_part_that_is_not_held_out_is_not_measured(train: Train, framework: str, make_config: Make):
    config = make_config(epochs=1, train_on_valid=True)
    train(config)
    told = error_of(call(framework, "evaluate", "--run", config.out, "--part", "valid"))
    assert "part: expected one that the run held out, got valid of a run with train_on_valid" in told
