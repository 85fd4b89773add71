"""Warm starts and full retrainings are measured alike, stopped benchmarks go on, and their rows are told and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import Ragged
from typer.testing import CliRunner

from benchmarks.days import __main__ as days
from benchmarks.days.cells import BASE, FULL, KINDS, LOGS, WARM, Chain, Day, Log, select
from benchmarks.days.logs import LogData, in_items_of, write_logs
from benchmarks.days.results import COLUMNS, ResultsError, add, missing, read
from benchmarks.days.table import markdown
from benchmarks.days.training import Comparison, train_chain
from benchmarks.study.cells import GROUPED, Cell
from tests.benchmarks.walks import CPU, SMALL

DAY = Day("2024-03-02")
USERS, ITEMS, EVENTS, NEW = 80, 40, 12, 400
ACTIVE = USERS // 4 + USERS // 10
CELL = Cell(replace(SMALL, epochs=8), GROUPED, {"precision": "fp32", "max_length": 12})
VERSIONS: dict[str, Any] = {"gpu": "a GPU", "cores": 16, "python": "3.12.3", "torch": "2.11.0", "triton": "3.6.0"}
VERSIONS |= {"jax": "0.11.2", "commit": "abc1234"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk round the items in steps of their own; on the day a quarter of them walk on, and a tenth are new.
    Of both every second one ends at a new item. 300 other items make room for negatives."""
    rng = np.random.default_rng(0)
    rows: list[tuple[int, int, int]] = []
    for user in range(USERS + USERS // 10):
        place, stride = rng.integers(0, ITEMS), 1 + user % 3
        old = EVENTS if user < USERS else 0
        new = 4 if user % 4 == 0 or user >= USERS else 0
        rows += [(user, int(place + stride * event) % ITEMS, DAY.begin - 1000 + event) for event in range(old)]
        rows += [(user, int(place + stride * (old + event)) % ITEMS, DAY.begin + event) for event in range(new)]
        rows += [(user, NEW, DAY.end - 1)] if new and user % 8 < 4 else []
    rows += [(1000 + item // 10, 100 + item, DAY.begin - 2000 + item) for item in range(300)]
    rows += [(0, 0, DAY.end)]
    user, item, time = (list(column) for column in zip(*rows, strict=True))
    folder = tmp_path_factory.mktemp("days")
    pq.write_table(pa.table({"user_id": user, "item_id": item, "timestamp": time}), folder / "walks.parquet")
    return folder


def logs(data: Path, folder: Path) -> tuple[LogData, LogData]:
    paths = write_logs(data / "walks.parquet", DAY, folder)
    first, second = (LogData.of(replace(CELL.config(data, 0), data=str(path))) for path in paths)
    return first, second


def test_logs_are_cut_by_time(data: Path, tmp_path: Path):
    yesterday, today = logs(data, tmp_path)
    assert yesterday.interactions.time.max() < DAY.begin <= DAY.end - 1 == today.interactions.time.max()
    assert yesterday.split.num_items + 1 == today.split.num_items
    assert yesterday.interactions.num_users + 8 == today.interactions.num_users
    with pytest.raises(ValueError, match="expected events before and on"):
        write_logs(data / "walks.parquet", Day("2024-04-02"), tmp_path)


def test_yesterdays_training_has_nothing_that_today_holds_out(data: Path, tmp_path: Path):
    """Each user's training items are the first of those of the next day."""
    yesterday, today = logs(data, tmp_path)
    users = [log.interactions.user[log.interactions.offsets[:-1]] for log in (yesterday, today)]
    labels = [np.asarray(log.interactions.user_labels)[own] for log, own in zip((yesterday, today), users, strict=True)]
    later = dict(zip(labels[1].tolist(), today.split.train, strict=True))
    names = [log.interactions.item_labels for log in (yesterday, today)]
    for user, items in zip(labels[0].tolist(), yesterday.split.train, strict=True):
        np.testing.assert_array_equal(names[0][items], names[1][later[user][: len(items)]])


def test_active_users_are_those_of_the_day(data: Path, tmp_path: Path):
    _, today = logs(data, tmp_path)
    active = today.active(DAY.begin)
    assert len(active) == len(today.split.test_target)
    users = today.interactions.user_labels[np.diff(today.interactions.offsets) >= 3]
    np.testing.assert_array_equal(active, ((users % 4 == 0) & (users < USERS)) | ((users >= USERS) & (users < 1000)))


def test_rows_are_ranked_by_a_model_of_other_items():
    places = np.array([5, -1, 7, -1], np.int32)
    history = Ragged.from_rows([[0, 1, 2], [1, 3], [2], [0, 0]])
    known, target = in_items_of(places, history, np.array([2, 0, 1, 0], np.int32))
    assert [row.tolist() for row in known] == [[5, 7], [5, 5]]  # no history, no target
    assert target.tolist() == [7, 5]


@pytest.fixture(scope="module", params=["torch", "jax"])
def chain(request: pytest.FixtureRequest, data: Path) -> list[dict[str, Any]]:
    return train_chain(Chain(CELL, DAY, request.param, 1), data, CPU)


def test_a_chain(chain: list[dict[str, Any]]):
    base, full, warm = chain
    assert [row["kind"] for row in chain] == list(KINDS)
    assert {name for row in chain for name in row} <= set(COLUMNS)
    assert full["events"] - base["events"] == warm["events"] - base["events"] == 4 * ACTIVE + 14
    for row in chain:
        assert (row["test_users"], row["active_users"]) == (USERS + USERS // 10 + 30, ACTIVE)
        assert row["steps"] == row["epochs"] * row["steps_per_epoch"]
        assert row["steps_to_best"] == (row["best_epoch"] + 1) * row["steps_per_epoch"]
        assert len(row["valid_curve"].split()) == row["epochs"]
    assert full["steps_to_best"] // 3 - warm["steps_per_epoch"] < warm["steps"] <= full["steps_to_best"] / 3
    assert float(warm["valid_curve"].split()[0]) > float(full["valid_curve"].split()[0])
    assert all(row[name] > 0 for row in chain for name in ("test_ndcg@10", "active_ndcg@10"))


def test_a_run_is_tested_as_it_tests_itself(data: Path, tmp_path: Path):
    """What a run on yesterday's log reaches is found from outside; of a run on today's that is what it finds."""
    _, today = logs(data, tmp_path)
    config = replace(CELL.config(data, 1), data=str(tmp_path / "today.parquet"), out=str(tmp_path / "run"))
    other = LogData(today.interactions, today.split)
    row = Comparison("torch", "cpu", other, today, DAY.begin).run(BASE, replace(config, epochs=2, device="cpu"))
    own = Comparison("torch", "cpu", other, today, DAY.begin).run(
        FULL, replace(config, epochs=2, device="cpu", out=str(tmp_path / "own"))
    )
    for name in ("test_ndcg@10", "test_hr@10", "active_ndcg@10"):
        assert row[name] == pytest.approx(own[name], rel=1e-4)


def test_a_full_retraining_that_is_best_at_once_is_no_measure(data: Path):
    short = replace(CELL, changes=CELL.changes | {"epochs": 2, "patience": 2})
    with pytest.raises(ValueError, match=r"expected its best epoch from 3 on, got [12]"):
        train_chain(Chain(short, DAY, "torch", 1), data, CPU)


def made(warm: float, *, steps: int = 30, full: float = 0.4, curve: str = "0.30 0.41 0.40") -> list[Any]:
    """Rows of a chain whose full retraining is best after 100 steps."""
    shared = {"users": 9, "items": 9, "steps_per_epoch": 10, "test_users": 9, "active_users": 3, "valid_hr@10": 0.5}
    shared |= {"test_hr@10": 0.5, "active_ndcg@10": 0.2, "active_hr@10": 0.5, "valid_curve": curve, "seconds": 1.0}
    own = {
        BASE: {"events": 900, "steps": 90, "test_ndcg@10": full / 2, "active_ndcg@10": None},
        FULL: {"events": 1000, "steps": 200, "steps_to_best": 100, "best_epoch": 9, "test_ndcg@10": full}
        | {"valid_curve": " ".join(["0.3"] * 20)},
        WARM: {"events": 1000, "steps": steps, "epochs": 3, "best_epoch": 1, "test_ndcg@10": warm},
    }
    return [{**shared, "kind": kind, "valid_ndcg@10": 0.405, **own[kind]} for kind in KINDS]


def chain_of(seed: int, day: Day = DAY, dataset: str = "walks") -> Chain:
    return Chain(replace(CELL, dataset=replace(CELL.dataset, name=dataset)), day, "torch", seed)


def test_ratios_are_told_with_what_was_aimed_at(tmp_path: Path):
    path = tmp_path / "warm.csv"
    add(path, chain_of(1), made(0.404), VERSIONS)
    add(path, chain_of(2), made(0.396, curve="0.3 0.4 0.4"), VERSIONS)
    add(path, chain_of(1, Day("2024-03-02", 7)), made(0.38, steps=40), VERSIONS)
    shown = markdown(read(path)).splitlines()
    assert (
        "| walks | 2024-03-02 | PyTorch | 100 | 3 | 2 | 0.4000 | 0.4000 | 100.0% (93.7% to 106.3%) | "
        "100.0% (100.0% to 100.0%) | 100.0% (100.0% to 100.0%) | 50.0% | 0.300 | 1 of 2 | 0.200 |"
    ) in shown
    assert any("| 2024-03-02, 7 days |" in line and "95.0%, missed |" in line for line in shown)
    assert any("| 0.400, missed |" in line for line in shown)
    assert any(line.startswith("| walks | all | PyTorch | 100 | 3 | 2 |") for line in shown)
    assert shown[-1].endswith("commit abc1234")


def test_rows_of_several_options_are_not_mixed(tmp_path: Path):
    path = tmp_path / "warm.csv"
    other = replace(chain_of(2), cell=replace(CELL, changes=CELL.changes | {"dropout": 0.3}))
    add(path, chain_of(1), made(0.4), VERSIONS)
    add(path, other, made(0.4), VERSIONS)
    assert [chain.seed for chain in missing([chain_of(1), chain_of(2)], path)] == [2]
    with pytest.raises(ResultsError, match="several digests"):
        markdown(read(path))
    add(path, chain_of(2), made(0.4), VERSIONS)  # in place of the other's
    assert missing([chain_of(1), chain_of(2)], path) == []
    assert len(read(path)) == 6


def test_a_stopped_benchmark_goes_on_with_what_is_missing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LOGS, "walks", Log(CELL, (DAY, Day("2024-03-02", 7)), seeds=2))
    trained: list[tuple[str, ...]] = []

    def spread(_: object, todo: list[Chain], *rest: object, **options: object):
        for chain in todo[:3]:
            trained.append(chain.key)
            yield chain, RuntimeError("no memory") if len(trained) == 2 else made(0.4)

    monkeypatch.setattr("benchmarks.study.pool.spread", spread)
    csv = tmp_path / "warm.csv"
    arguments = ["run", "--data", str(data), "--datasets", "walks", "--frameworks", "torch", "--csv", str(csv)]
    first = CliRunner().invoke(days.app, arguments)
    assert first.exit_code == 1, first.output
    assert "2 chains trained, 1 failed, 2 left" in first.output
    second = CliRunner().invoke(days.app, arguments)
    assert "2 chains trained, 0 failed, 0 left" in second.output
    assert sorted(set(trained)) == sorted(chain.key for chain in select(["walks"], ["torch"]))
    assert len(trained) == 5
    assert len(read(csv)) == 12
    drawn = CliRunner().invoke(days.app, ["plot", "--csv", str(csv), "--out", str(tmp_path)])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "warm_start.png").stat().st_size > 8_000


def test_jax_has_fewer_chains_than_pytorch():
    chains = select(LOGS, ["torch", "jax"])
    counts = {name: sum(chain.framework == name for chain in chains) for name in ("torch", "jax")}
    assert 0 < counts["jax"] < counts["torch"] == sum(len(log.days) * log.seeds for log in LOGS.values())
    assert len({chain.key for chain in chains}) == len(chains)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--datasets", "walks"], "datasets: expected some of git_commits"),
        (["run", "--frameworks", "tensorflow"], "frameworks: expected some of torch, jax"),
        (["run"], "data: expected git_commits.parquet"),
    ],
)
def test_what_cannot_be_trained_is_refused(arguments: list[str], message: str, tmp_path: Path):
    refused = CliRunner().invoke(days.app, [*arguments, "--data", str(tmp_path)])
    assert refused.exit_code == 2
    assert message in refused.output


@pytest.mark.skipif(not days.CSV.exists(), reason="nothing has been measured yet")
def test_the_readme_has_the_table_of_the_rows():
    assert markdown(read(days.CSV)) in (Path(days.__file__).parent / "README.md").read_text()
