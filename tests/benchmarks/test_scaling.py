"""Scaling of the sharded catalog: rows from two ranks, bytes as counted by hand, and who fails is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import scaling
from benchmarks.scaling import measure as measuring
from benchmarks.scaling import torch_steps
from benchmarks.scaling.__main__ import CSV, app
from benchmarks.scaling.cases import GOALS, KINDS, PROVIDERS, STRONG, WEAK, Case, case_of
from benchmarks.scaling.jax_collectives import local
from benchmarks.scaling.jax_devices import measure_devices
from benchmarks.scaling.measure import environment, measure
from benchmarks.scaling.plots import figures
from benchmarks.scaling.results import COLUMNS, add, gain, markdown, read
from benchmarks.scaling.torch_ranks import CAPTURING, measure_rank
from benchmarks.scaling.workers import WorkersError, run_together
from tests.benchmarks.scaling_worker import work

TOLD: dict[str, object] = dict.fromkeys(("gpu", "torch", "triton", "jax", "commit"), "x")
ROWS, DIM = 128, 16
DENSE = 4 * (2 * (12 * DIM**2 + 13 * DIM) + 16 * DIM + 2 * DIM)  # two blocks, 16 positions, the last norm


def small(kind: str, gpus: int) -> Case:
    if kind == WEAK:
        return Case(WEAK, gpus, 4000 * gpus, ROWS, 16, DIM, 64, "float32", rounds=1, steps=2)
    return Case(STRONG, gpus, 800, 2 * ROWS // gpus, 0, DIM, 800, "bfloat16", rounds=1, steps=2)


def test_the_readmes_tables_are_the_rows():
    assert markdown(read(CSV)) in (Path(scaling.__file__).parent / "README.md").read_text()


def silent(stage: str) -> None:
    pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="the devices are a CPU's")
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_two_ranks(provider: str, kind: str, tmp_path: Path):
    case = small(kind, 2)
    row = measure(provider, case, False, TOLD, print)
    if provider == "torch":
        ids = 8 * ROWS  # targets, to the other rank
        checks = 8  # on a CPU: how many rows a rank has
    else:
        ids, checks = 4 * ROWS + ROWS, 0  # and whether each is counted
    hidden, parts = 2 * ROWS * DIM, 8 * ROWS  # bfloat16, and two numbers a row; back and forth
    expected = ids + checks + 2 * (hidden + parts)
    if kind == WEAK:  # the loss's rows are checked too; inputs, and bfloat16 rows of theirs, back and forth
        expected += (8 * ROWS + 2 * checks if provider == "torch" else 4 * ROWS) + 2 * 2 * ROWS * DIM
    assert row["exchange_bytes"] == expected
    assert row["dense_bytes"] == (DENSE if kind == WEAK else 0)
    assert row["ddp_bytes"] == (8000 * DIM * 4 if kind == WEAK else 800 * DIM * 2)
    assert row["ms"] > 0 < row["ms_without_exchange"]  # type: ignore[operator]
    add(tmp_path / "scaling.csv", row)
    (found,) = read(tmp_path / "scaling.csv")
    assert (found["framework"], found["kind"], found["gpus"]) == (provider, kind, "2")
    assert all(found[name] for name in COLUMNS if name != "peak_bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_exchanges_nothing(kind: str):
    found = measure_rank(0, silent, small(kind, 1), "", False)
    assert found["ms"] == found["ms_without_exchange"] > 0
    assert found["exchange_bytes"] == found["dense_bytes"] == 0


def test_one_device_exchanges_nothing():
    found = measure_devices(0, silent, small(WEAK, 1), jax.default_backend())
    assert found["ms"] == found["ms_without_exchange"] > 0
    assert found["exchange_bytes"] == found["dense_bytes"] == 0
    with pytest.raises(RuntimeError, match=r"expected 99 devices of platform"):
        measure_devices(0, silent, small(WEAK, 99), "cpu")


def test_a_training_step_learns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch_steps, "_RATE", 0.02)
    step = torch_steps.make_step(small(WEAK, 1), 0, torch.device("cpu"))
    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.5


def test_items_of_others_are_moved_on():
    with local(Case(WEAK, 2, 8, 3, 3, 4, 4, "float32")):
        gathered: Any = jax.lax.all_gather(jnp.array([0, 2, 6], jnp.int32), "shard", tiled=True)
        parts = jax.lax.all_gather(jnp.ones((2, 3)), "shard", tiled=True)
    assert gathered.tolist() == [0, 2, 6, 4, 6, 2]
    assert parts.shape == (4, 3)


def test_who_fails_or_is_silent_is_named():
    def ran(what: str) -> list[Any]:
        return run_together(work, 2, (what,), {"NCCL_NVLS_ENABLE": "0"}, silence=5.0)

    before = dict(os.environ)
    assert ran("") == ["00", "01"]
    assert dict(os.environ) == before
    with pytest.raises(WorkersError, match=r"^nothing was heard for 5 s of rank 1, its work$") as caught:
        ran("wait")
    assert caught.value.stages == ["its work"] * 2
    with pytest.raises(WorkersError, match=r"^rank 1, its work: ValueError: expected a number \(.*scaling_worker\.py:"):
        ran("fail")
    with pytest.raises(WorkersError, match=r"rank 0, its work: the process ended"):
        ran("end")


def test_what_is_not_captured_runs_eager_and_says_so(monkeypatch: pytest.MonkeyPatch):
    tried: list[bool] = []

    def ran(call: Any, number: int, arguments: tuple[Any, ...], values: dict[str, str]) -> list[dict[str, float]]:
        tried.append(arguments[2])
        if arguments[2]:
            raise WorkersError("rank 1: no graph", ["timing", CAPTURING])
        times = {"ms": 2.0, "ms_without_exchange": 1.5, "exchange_bytes": 8.0, "dense_bytes": 4.0, "peak_bytes": 9.0}
        return [times, times | {"ms": 3.0}]

    monkeypatch.setattr(measuring, "run_together", ran)
    row = measure("torch", small(WEAK, 2), True, TOLD, print)
    assert tried == [True, False]
    assert row["how"] == "eager: rank 1: no graph"
    assert (row["ms"], row["exposed_ms"], row["peak_bytes"]) == (3.0, 1.5, 9)


def test_ranks_see_as_many_gpus_as_they_need(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert environment(small(WEAK, 2), True)["CUDA_VISIBLE_DEVICES"] == "3,5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment(small(WEAK, 2), True)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert environment(small(WEAK, 2), False)["CUDA_VISIBLE_DEVICES"] == ""


def test_sizes_are_those_of_the_issue():
    weak, strong = case_of(WEAK, 4), case_of(STRONG, 4)
    assert (weak.items_of_each, weak.positions, weak.table_bytes) == (25_000_000, 25_600, 12_800_000_000)
    assert weak.ddp_bytes == 2 * 3 / 4 * 100_000_000 * 128 * 4
    assert (strong.items, strong.positions, strong.table_bytes) == (1_000_000, 8192, 64_000_000)


def test_rows_are_printed_and_drawn(tmp_path: Path):
    csv = tmp_path / "scaling.csv"
    times = {(WEAK, 1): 4.0, (WEAK, 2): 5.0, (STRONG, 1): 30.0, (STRONG, 2): 16.0}
    for (kind, gpus), ms in times.items():
        case = case_of(kind, gpus)
        sizes = {"items_per_gpu": case.items_of_each, "table_bytes": case.table_bytes, "ddp_bytes": case.ddp_bytes}
        sent = {"exchange_bytes": 2.0**21, "dense_bytes": 2.0**20, "peak_bytes": case.table_bytes + 2**30}
        of_step = {"ms": ms, "ms_without_exchange": ms - 0.25, "exposed_ms": 0.25, "how": "CUDA graph"}
        add(csv, {"framework": "torch", "kind": kind, "gpus": gpus, **sizes, **sent, **of_step, **TOLD})
    rows = read(csv)
    assert [gain(row, rows) for row in rows] == [1.0, 0.8, 1.0, 1.875]
    text = markdown(rows)
    assert (
        "| PyTorch | 2 | 25,000,000 | 5.000 | 0.80 (0.9) | 0.250 | 2.0 | 1.0 | 24414.1 | 12207.0 | 1024 | CUDA" in text
    )
    assert "| PyTorch | 2 | 500,000 | 16.000 | 1.88 (1.8) |" in text
    assert text.startswith("Weak scaling: ")
    assert list(figures(rows)) == ["scaling_weak.png", "scaling_strong.png"]
    assert list(figures(rows[2:])) == ["scaling_strong.png"]
    assert set(GOALS) == {(kind, gpus) for kind in KINDS for gpus in (2, 4)}


def test_commands_say_what_is_missing(tmp_path: Path):
    for command in ("table", "plot"):
        done = CliRunner().invoke(app, [command, "--csv", str(tmp_path / "none.csv")])
        assert done.exit_code == 2
        assert "has no rows; measure first" in done.output
    if torch.cuda.device_count() < 4:
        done = CliRunner().invoke(app, ["run", "--gpus", "4"])
        assert done.exit_code == 2
        assert "expected at most as many as there are" in done.output


def test_rows_are_added_as_they_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def measured(provider: str, case: Case, gpus: bool, told: dict[str, object], say: Any) -> dict[str, object]:
        if provider == "jax":
            raise WorkersError("rank 0: no memory", ["timing"])
        times = {"ms": 2.0, "exposed_ms": 0.5, "how": "CUDA graph"}
        return {"framework": provider, "kind": case.kind, "gpus": case.gpus, **times, **told}

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(measuring, "machine", lambda commit: TOLD | {"commit": commit})
    monkeypatch.setattr(measuring, "measure", measured)
    csv = tmp_path / "scaling.csv"
    done = CliRunner().invoke(app, ["run", "--kinds", "weak", "--csv", str(csv), "--commit", "abc"])
    assert done.exit_code == 1
    assert "torch, weak, GPUs: 2: 2.000 ms, of which 0.500 exposed exchange (CUDA graph)" in done.output
    assert "failed: jax, weak, GPUs: 1: rank 0: no memory" in done.output
    assert [(row["gpus"], row["commit"]) for row in read(csv)] == [("1", "abc"), ("2", "abc")]
