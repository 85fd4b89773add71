"""Steps on catalogs: what is measured learns, and what is written is read again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cce_minus.torch_impl import UniformNegatives

from benchmarks.catalog import jax_steps, plots, torch_steps
from benchmarks.catalog.__main__ import CSV, RUNS
from benchmarks.catalog.cases import CATALOGS, PROVIDERS, Catalog, fits
from benchmarks.catalog.planted import EVENTS, TOPIC, write_planted
from benchmarks.catalog.results import ResultsError, add, add_run, markdown, read, read_runs, run_markdown
from benchmarks.catalog.whole_run import whole_run

ROOT = Path(__file__).parent.parent.parent
SMALL = Catalog("1M", 4000, 16, "float32")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    for module in (torch_steps, jax_steps):
        for name, value in {"ROWS": 256, "INPUTS": 64, "_STEPS": 2, "_ROUNDS": 1}.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(module, "_SAMPLER", UniformNegatives(32, 128))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("provider", torch_steps._STEPS_OF)
def test_pytorchs_steps_move_the_table(provider: str, monkeypatch: pytest.MonkeyPatch):
    losses: list[float] = []
    backward = torch.Tensor.backward

    def noted(loss: torch.Tensor) -> None:
        losses.append(float(loss.detach()))
        backward(loss)

    monkeypatch.setattr(torch.Tensor, "backward", noted)
    monkeypatch.setattr(torch_steps, "_RATE", 0.1)
    torch.manual_seed(0)
    step = torch_steps._STEPS_OF[provider](SMALL)
    for _ in range(20):
        step()
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jaxs_steps_are_measured(dtype: str):
    found = jax_steps.measure(Catalog("1M", 4000, 16, dtype))
    assert found["ms"] > 0  # type: ignore[operator]


def row(catalog: str, provider: str, ms: float) -> dict[str, object]:
    sizes = CATALOGS[catalog]
    told = dict.fromkeys(("gpu", "torch", "triton", "jax", "commit"), "x")
    of = {"catalog": catalog, "items": sizes.items, "dim": sizes.dim, "dtype": sizes.dtype, "provider": provider}
    return {**of, "rows": 1, "inputs": 1, "negatives": 1, "ms": ms, "mib": None, **told}


def test_rows_are_replaced_printed_and_drawn(tmp_path: Path):
    csv = tmp_path / "catalog.csv"
    assert read(csv) == []
    for catalog, provider, ms in (
        ("100M", "torch", 2.0),
        ("1M", "torch", 3.0),
        ("1M", "jax", 4.0),
        ("1M", "torch", 1.0),
    ):
        add(csv, row(catalog, provider, ms))
    rows = read(csv)
    assert [(each["catalog"], each["provider"], float(each["ms"])) for each in rows] == [
        ("1M", "torch", 1.0),
        ("1M", "jax", 4.0),
        ("100M", "torch", 2.0),
    ]
    text = markdown(rows)
    assert "| 100M | 23.8 GiB, D=64, float32 |" in text
    assert text.count("\n| ") == 3
    assert list(plots.figures(rows)) == ["catalog_step.png"]
    csv.write_text("a,b\n")
    with pytest.raises(ResultsError):
        read(csv)


def test_what_does_not_fit_is_left_out():
    memory = 80 << 30
    taken = {
        provider: [name for name, catalog in CATALOGS.items() if fits(provider, catalog, memory)]
        for provider in PROVIDERS
    }
    assert taken["torch"] == ["1M", "10M", "40M", "100M", "100M-128", "400M", "500M"]
    assert taken["dense-adamw"] == ["1M", "10M", "40M"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="what there is without a GPU")
def test_a_provider_is_measured_in_a_process_of_its_own(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.catalog", "run", "--catalogs", "1M", "--providers", "torch"]
    done = subprocess.run(
        [*command, "--csv", str(tmp_path / "c.csv")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "failed: torch: NoGpuError('expected an NVIDIA GPU, got none')" in done.stderr


def test_planted_logs_have_their_structure(tmp_path: Path):
    paths = write_planted(tmp_path, 5000, users=2000, topics=2)
    assert pq.read_table(paths["items"])["item_id"].to_pylist() == list(range(5000))
    events = pq.read_table(paths["data"]).to_pydict()
    known, item = np.unique(events["item_id"], return_inverse=True)
    assert len(known) == 2 * TOPIC
    item = item.reshape(-1, EVENTS)
    follows = np.zeros((len(known), len(known)))
    np.add.at(follows, (item[:, :-1].ravel(), item[:, 1:].ravel()), 1)
    # nine in ten follow in their topic, and half of the others come back to it
    assert np.sort(follows, axis=1)[:, -TOPIC:].sum() / follows.sum() == pytest.approx(0.95, abs=0.01)
    again = write_planted(tmp_path, 5000, users=2000, topics=2)
    assert pq.read_table(again["data"]).to_pydict() == events


def test_a_whole_run_is_told_by_its_commands(tmp_path: Path):
    options = {
        "batch_size": 8, "num_negatives": 64, "epochs": 60, "patience": 60, "test_users": 20, "device": "cpu",
        "dim": 16, "learning_rate": 0.01, "warmup_steps": 1, "precision": "fp32",
    }  # fmt: skip
    rows = list(whole_run("torch", 3000, options, lambda text: None, users=64, topics=4))
    assert [row["part"] for row in rows] == ["data", "train, killed", "resume", "evaluate", "recommend", "export"]
    resumed, evaluated = rows[2], rows[3]
    assert evaluated["ndcg@10"] == pytest.approx(resumed["ndcg@10"], abs=1e-4)
    assert str(rows[4]["output"]).startswith("user 0, who had last ")
    assert all(float(str(row["seconds"])) > 0 for row in rows)
    told = dict.fromkeys(("dim", "dtype", "item_optimizer", "gpu", "torch", "triton", "jax", "commit"), "x")
    for row in [*rows, *rows]:
        add_run(tmp_path / "runs.csv", {"items": 3000, "framework": "torch", **row, **told})
    found = read_runs(tmp_path / "runs.csv")
    assert [row["part"] for row in found] == [row["part"] for row in rows]
    assert run_markdown(found).count("| torch |") == len(rows)


def test_the_readme_has_the_tables():
    readme = (ROOT / "benchmarks" / "catalog" / "README.md").read_text()
    assert markdown(read(CSV)) in readme
    assert run_markdown(read_runs(RUNS)) in readme
