"""Runs that start from an earlier one's weights, whose items are found by their labels."""

from __future__ import annotations

import json
import logging
import re
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
from cce_minus.recsys.run import tensor_file
from cce_minus.recsys.run.checkpoint_file import NAME
from cce_minus.recsys.run.tensor_file import Stored, open_tensor_file, write_tensor_file

from tests.training.commands import FRAMEWORKS, call, recommend
from tests.training.days import (
    GONE,
    KNOWN,
    LENGTH,
    NEW,
    OPTIMIZERS,
    ROWS,
    USERS,
    assert_mapped,
    labels_of,
    load_weights,
    new_rows,
    start_of,
    todays_labels,
    untrained_run,
)  # fmt: skip
from tests.training.test_run import assert_same_run

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("other", FRAMEWORKS)
def test_items_are_found_by_their_labels(
    framework: str, other: str, make_day: Make, earlier: dict[str, Path], days: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """In pieces of three rows too; items of neither day's place are anywhere else's."""
    before, today = load_weights(earlier[other] / "best.safetensors"), todays_labels(days)
    assert len(today) == KNOWN + NEW
    monkeypatch.setattr(tensor_file, "PIECE", 200)
    got, _ = start_of(framework, make_day("today", from_run=str(earlier[other])))
    assert got.keys() == before.keys()
    new = new_rows(before["item_table"], earlier[other], days[1])
    assert len(new) == NEW
    assert_mapped(got.pop("item_table"), before.pop("item_table"), earlier[other], today, new)
    for name, tensor in before.items():
        np.testing.assert_array_equal(got[name], tensor, err_msg=name)


def test_held_out_events_are_no_neighbours(
    framework: str, make_day: Make, earlier: dict[str, Path], days: tuple[Path, Path], tmp_path: Path
):
    """Whatever comes at the two places that a user holds out, new items start as they did; one that comes there alone
    has no neighbours."""
    table = pq.read_table(days[1])
    items = np.array(table["item_id"].to_pylist()).reshape(USERS, LENGTH)
    items[::2, -2:], items[1::2, -2:] = ["7", "99"], ["99", "8"]
    log = tmp_path / "other.parquet"
    pq.write_table(table.set_column(1, "item_id", pa.array(items.ravel())), log)
    run, today = earlier[framework], sorted(set(items.ravel()))
    before = load_weights(run / "best.safetensors")["item_table"]
    got, _ = start_of(framework, make_day("today", from_run=str(run), data=str(log)))
    new = new_rows(before, run, days[1])
    new["99"] = before.mean(axis=0, dtype=np.float64).astype(np.float32)
    assert_mapped(got["item_table"], before, run, today, new)


@pytest.mark.parametrize("name", ["adamw", "lazy-adam", "rowwise-adagrad"])
def test_both_frameworks_start_with_the_same_rows(make_day: Make, name: str):
    """Of bfloat16 too."""
    run = make_day("yesterday", **OPTIMIZERS[name])
    untrained_run("torch", run)
    in_torch, in_jax = (
        start_of(each, make_day(f"{each}-today", from_run=run.out, **OPTIMIZERS[name]))[0]["item_table"]
        for each in ("torch", "jax")
    )
    np.testing.assert_array_equal(in_torch, in_jax)


@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_optimizers_state_is_the_earlier_runs(
    framework: str, make_day: Make, days: tuple[Path, Path], options: dict[str, Any]
):
    run = Path(make_day("yesterday").out)
    before = untrained_run(framework, make_day("yesterday", **options))
    weights, state = start_of(framework, make_day("today", from_run=str(run), **options))
    today = todays_labels(days)
    carried = [name for name in state if name.startswith(("optimizer/", "items/"))]
    of_items = [name for name in carried if before[name].shape[:1] == (GONE + KNOWN,)]
    assert len(carried) > 5
    has_one = options.get("optimizer") == "sgd" or options.get("item_optimizer") == "rowwise-adagrad"
    assert len(of_items) == (1 if has_one else 2)
    for name in carried:
        array = before[name]
        if name in of_items:
            assert_mapped(state[name], array, run, today, np.zeros_like(array[0]))
        else:
            np.testing.assert_array_equal(state[name], array, err_msg=name)
    table = load_weights(run / "best.safetensors")["item_table"]
    place = {label: number for number, label in enumerate(labels_of(run))}
    known = [label for label in today if label in place]
    got = weights["item_table"][[today.index(label) for label in known]]
    np.testing.assert_array_equal(got, table[[place[label] for label in known]])


def test_clipping_may_change(framework: str, make_day: Make):
    """It takes a place before the state of an optimizer of Optax's."""
    run = make_day("yesterday", **OPTIMIZERS["clipped"])
    untrained_run(framework, run)
    _, state = start_of(framework, make_day("today", from_run=run.out, optimizer="adamax"))
    carried = [array for name, array in state.items() if name.startswith("optimizer/")]
    assert len(carried) > 5
    assert all(array.any() for array in carried)


def test_why_an_optimizer_starts_anew_is_told(
    framework: str, make_day: Make, earlier: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    other = {"torch": "jax", "jax": "torch"}[framework]
    without = tmp_path / "without"
    shutil.copytree(earlier[framework], without)
    shutil.rmtree(without / f"{framework}-checkpoints")
    cases = [
        (earlier[other], {}, "it is a run of"),
        (without, {}, "it has no last checkpoint"),
        (earlier[framework], {"optimizer": "adam"}, "optimizer was adamw and is adam"),
        (earlier[framework], {"item_optimizer": "lazy-adam", **ROWS}, "item_optimizer was adamw and is lazy_adam"),
    ]
    for number, (run, options, reason) in enumerate(cases):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            _, state = start_of(framework, make_day(f"run{number}", from_run=str(run), **options))
        (told,) = [line for line in caplog.messages if "optimizer starts anew" in line]
        assert reason in told
        assert all(not array.any() for name, array in state.items() if name.startswith(("optimizer/", "items/")))


@pytest.mark.parametrize("length", [8, 12, 15])
def test_positions_are_counted_from_the_end(framework: str, make_day: Make, length: int):
    run = make_day("yesterday")
    kept = untrained_run(framework, run)
    before = load_weights(Path(run.out) / "best.safetensors")["position_table"]
    weights, state = start_of(framework, make_day("today", from_run=run.out, max_length=length))
    expected = [before[max(place - length + 12, 0)] for place in range(length)]
    np.testing.assert_array_equal(weights["position_table"], np.stack(expected))
    (moment,) = [name for name in state if name.endswith(("exp_avg/position_table", "mu/position_table"))]
    padded = np.concatenate([np.zeros((3, 16), np.float32), kept[moment]])
    np.testing.assert_array_equal(state[moment], padded[len(padded) - length :])


def test_a_state_that_does_not_fit_is_left(framework: str, make_day: Make, caplog: pytest.LogCaptureFixture):
    run = make_day("yesterday")
    kept = untrained_run(framework, run)
    (moment,) = [name for name in kept if name.endswith(("exp_avg/item_table", "mu/item_table"))]
    path = Path(run.out) / f"{framework}-checkpoints" / NAME
    metadata, _ = open_tensor_file(path)
    cases = [
        ({name: array for name, array in kept.items() if name != moment}, f"as it has no {moment}"),
        (kept | {moment: kept[moment][:, :8]}, r"has the shape \(40, 8\) and is to have \(39, 16\)"),
    ]
    for number, (arrays, reason) in enumerate(cases):
        write_tensor_file(path, {name: Stored.of(array) for name, array in arrays.items()}, metadata)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            _, state = start_of(framework, make_day(f"today{number}", from_run=run.out))
        assert re.search(rf"the optimizer starts anew, .*{reason}", caplog.text)
        assert not any(array.any() for name, array in state.items() if name.startswith("optimizer/"))
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"^from_run: expected a checkpoint that can be read, got .*last"):
        start_of(framework, make_day("other", from_run=run.out))


def test_a_run_goes_on_without_the_earlier_one(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path], tmp_path: Path
):
    run = shutil.copytree(earlier[framework], tmp_path / "moved")
    options = {"from_run": str(run), "gone_items": "keep"}
    train(make_day("whole", epochs=3, **options))
    train(make_day("parts", epochs=1, **options))
    shutil.rmtree(run)
    other = make_day("parts", epochs=3, resume=True, **(options | {"from_run": str(earlier[framework])}))
    with pytest.raises(ConfigError, match=r"from_run: expected .* as in the run to resume"):
        train(other)
    train(make_day("parts", epochs=3, resume=True, **options))
    assert_same_run(Path(make_day("parts").out), Path(make_day("whole").out))


def test_a_killed_run_without_a_checkpoint_starts_from_the_earlier_one_again(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path]
):
    config = make_day("today", from_run=str(earlier[framework]))
    whole = train(config)
    folder = Path(config.out)
    (folder / f"{framework}-checkpoints" / NAME).unlink()
    (folder / "best.safetensors").unlink()
    assert train(replace(config, resume=True)).losses == whole.losses


def test_it_begins_where_the_earlier_one_ended(train: Train, framework: str, make_day: Make, earlier: dict[str, Path]):
    result = json.loads((earlier[framework] / "result.json").read_text())
    warm, cold = (train(make_day(name, from_run=str(earlier[framework]), epochs=1)) for name in ("warm", "again"))
    assert warm.losses == cold.losses
    fresh = train(replace(make_day("fresh"), data=make_day("today", from_run="x").data))
    assert warm.losses[0] < min(result["losses"][0], fresh.losses[0])
    assert warm.best_epoch == 0


def test_an_optimizer_that_goes_on_has_no_warm_up(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path]
):
    options: dict[str, Any] = {"from_run": str(earlier[framework]), "epochs": 1}
    losses = [train(make_day(f"of-{steps}", warmup_steps=steps, **options)).losses for steps in (0, 10**6)]
    assert losses[0] == losses[1]
    # one that starts anew has: at hardly any rate weights stay
    path = Path(train(make_day("anew", warmup_steps=10**6, optimizer="adam", **options)).weights)
    start = start_of(framework, make_day("start", **(options | {"optimizer": "adam"})))[0]["item_table"]
    np.testing.assert_allclose(load_weights(path)["item_table"], start, atol=1e-4)


def test_gone_items_are_kept_where_asked_for(
    train: Train, framework: str, make_day: Make, earlier: dict[str, Path], tmp_path: Path
):
    config = make_day("today", from_run=str(earlier[framework]), gone_items="keep")
    result = train(config)
    labels = labels_of(config.out)
    assert set(labels) == {str(item) for item in range(GONE + KNOWN + NEW)}
    got = load_weights(Path(result.weights))["item_table"]
    assert got.shape == (GONE + KNOWN + NEW, 16)
    for other in FRAMEWORKS:
        rows = recommend(other, Path(config.out), tmp_path / "top.json", "--user", "3", "--k", len(labels) - 12)
        assert {str(item) for item in range(GONE)} <= set(rows[0]["items"])
        measured = call(other, "evaluate", "--run", config.out, "--json")
        assert json.loads(measured.output) == pytest.approx(result.test)
    dropped = make_day("dropped", from_run=str(earlier[framework]))
    train(dropped)
    assert set(labels_of(dropped.out)) == {str(item) for item in range(GONE, GONE + KNOWN + NEW)}


def test_a_run_that_has_seen_what_is_measured_is_told(
    framework: str, make_day: Make, earlier: dict[str, Path], caplog: pytest.LogCaptureFixture
):
    cases = [
        ({}, {}, None),
        ({"split": "none"}, {"split": "none"}, None),
        ({"split": "none"}, {}, "validation and test"),
        ({"split": "none"}, {"train_on_valid": True}, "this run's test"),
        ({"train_on_valid": True}, {}, "this run's validation may"),
        ({"train_on_valid": True}, {"train_on_valid": True}, None),
    ]
    for number, (before, now, told) in enumerate(cases):
        run = make_day(f"yesterday{number}", **before)
        untrained_run(framework, run)
        caplog.clear()
        start_of(framework, make_day(f"today{number}", from_run=run.out, **now))
        warnings = [line for line in caplog.messages if "too good" in line]
        assert len(warnings) == (told is not None)
        assert all(str(told) in line for line in warnings)


def test_averages_start_from_the_earlier_weights(framework: str, make_day: Make, earlier: dict[str, Path]):
    weights, state = start_of(framework, make_day("today", from_run=str(earlier[framework]), ema_decay=0.9))
    averages = [array for name, array in state.items() if name.startswith("average") and "item_table" in name]
    np.testing.assert_array_equal(averages[0], weights["item_table"])
    plain, _ = start_of(framework, make_day("plain", from_run=str(earlier[framework])))
    np.testing.assert_array_equal(weights["item_table"], plain["item_table"])
