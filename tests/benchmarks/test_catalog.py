"""Steps on catalogs: what is measured learns, and what is written is read again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cce_minus.torch_impl import UniformNegatives

from benchmarks.catalog import jax_steps, plots, torch_steps
from benchmarks.catalog.cases import CATALOGS, PROVIDERS, Catalog, fits
from benchmarks.catalog.results import ResultsError, add, markdown, read

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
    assert plots.draw(rows, tmp_path / "step.png").stat().st_size > 1000
    csv.write_text("a,b\n")
    with pytest.raises(ResultsError):
        read(csv)


def test_what_does_not_fit_is_left_out():
    memory = 80 << 30
    taken = {
        provider: [name for name, catalog in CATALOGS.items() if fits(provider, catalog, memory)]
        for provider in PROVIDERS
    }
    assert taken["torch"] == ["1M", "10M", "40M", "100M", "100M-128", "500M"]
    assert taken["dense-adamw"] == ["1M", "10M", "40M"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="what there is without a GPU")
def test_a_provider_is_measured_in_a_process_of_its_own(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.catalog", "run", "--catalogs", "1M", "--providers", "torch"]
    done = subprocess.run(
        [*command, "--csv", str(tmp_path / "c.csv")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "failed: torch: NoGpuError('expected an NVIDIA GPU, got none')" in done.stderr
