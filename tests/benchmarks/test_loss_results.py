"""The results of the loss benchmark: the CSV, the table and the images, on invented numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.loss.__main__ import app
from benchmarks.loss.provider import PAPER
from benchmarks.loss.results import COLUMNS, ResultsError, best_rows, check_machine, read, replace
from benchmarks.loss.shapes import SHAPES, SWEEPS, Shape, select

GPU = "NVIDIA Test"
MS = {
    "cce-minus grouped": 0.5,
    "cce-minus independent": 4.0,
    "cce-minus grouped (JAX)": 0.75,
    PAPER: 25.0,
    "a new one": 3.0,
}


def row(shape: Shape, provider: str, timing: str, ms: float, **changes: object) -> dict[str, object]:
    values = {
        "shape": shape.name, "rows": shape.rows, "negatives": shape.negatives, "items": shape.items, "dim": shape.dim,
        "targets": "uniform", "provider": provider, "timing": timing, "ms": ms, "ms_p10": ms * 0.9, "ms_p90": ms * 1.1,
        "rounds": 15, "steps": 10, "extra_bytes": 2**20 * 8, "bytes_per_pair": 0.5, "tflops": 200.0,
        "matmul_fraction": 0.25,
        "matmul_tflops": 790.0, "copy_gb_s": 3000.0, "floor_operations_ms": 0.05, "floor_bytes_ms": 0.1,
        "gate_error": 1e-3,
        "gpu": GPU, "torch": "2.11.0", "triton": "3.6.0", "jax": "0.11.2", "commit": "abc1234",
    }  # fmt: skip
    return values | changes


def timings_of(provider: str) -> tuple[str, ...]:
    if "JAX" in provider:
        return ("jit chained",)
    return ("eager", "graph", "graph chained", "forward") if "cce-minus" in provider else ("eager",)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two shapes and the sweep over K, the paper's kernel missing where it cannot run."""
    path = tmp_path / "loss.csv"
    for shape in select("A,F,sweep-k"):
        rows = []
        for provider, ms in MS.items():
            if provider == PAPER and (shape.full or shape.negatives > 65534):
                continue
            ms *= shape.negatives / 512
            memory = None if provider == "a new one" else 2**20 * 8
            rows += [
                row(shape, provider, t, ms * (2 if t == "eager" else 1), extra_bytes=memory, bytes_per_pair=memory)
                for t in timings_of(provider)
            ]
        replace(path, rows)
    return path


def test_a_second_run_replaces_the_rows_of_its_shapes_and_providers(results: Path):
    before = read(results)
    replace(results, [row(SHAPES["A"], "cce-minus grouped", "eager", 9.0)])
    after = read(results)
    assert [r["ms"] for r in after if r["shape"] == "A" and r["provider"] == "cce-minus grouped"] == ["9"]
    others = [r for r in before if (r["shape"], r["provider"]) != ("A", "cce-minus grouped")]
    assert [r for r in after if (r["shape"], r["provider"]) != ("A", "cce-minus grouped")] == others
    replace(results, [row(SHAPES["A"], "cce-minus grouped", "eager", 8.0, targets="zipf")])
    assert len(read(results)) == len(after) + 1, "other targets are other rows"


def test_missing_numbers_are_empty_cells(tmp_path: Path):
    path = tmp_path / "new" / "loss.csv"
    replace(path, [row(SHAPES["A"], "x", "eager", 1.0, extra_bytes=None, matmul_fraction=float("nan"))])
    (only,) = read(path)
    assert (only["extra_bytes"], only["matmul_fraction"], only["ms"]) == ("", "", "1")
    assert tuple(only) == COLUMNS


def test_files_that_cannot_be_added_to(results: Path, tmp_path: Path):
    check_machine(results, GPU)
    check_machine(tmp_path / "none.csv", "another")
    with pytest.raises(ResultsError, match="NVIDIA Test"):
        check_machine(results, "another")
    (tmp_path / "old.csv").write_text("shape,ms\nA,1\n")
    with pytest.raises(ResultsError, match="other columns"):
        read(tmp_path / "old.csv")
    with pytest.raises(ResultsError, match="does not exist"):
        read(tmp_path / "none.csv")


def test_a_replayed_graph_stands_for_a_provider(results: Path):
    best = best_rows(read(results))
    assert best["A", "uniform", "cce-minus grouped"]["timing"] == "graph"
    assert best["A", "uniform", PAPER]["timing"] == "eager"
    assert best["A", "uniform", "cce-minus grouped (JAX)"]["timing"] == "jit chained"


def test_table(results: Path):
    found = CliRunner().invoke(app, ["table", "--csv", str(results)])
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    ours = next(line for line in lines if line.startswith("| A:") and "| cce-minus grouped |" in line)
    cells = [cell.strip() for cell in ours.strip("|").split("|")]
    assert cells == [
        "A: N=16384 K=512 V=300000 D=256", "uniform", "cce-minus grouped", "0.5", "1", "0.5", "100.0", "8.0",
        "8.4e+06", "25%",
    ]  # fmt: skip
    full = next(line for line in lines if line.startswith("| F:"))
    assert "K=" not in full
    assert lines[-1] == f"{GPU}, torch 2.11.0, triton 3.6.0, jax 0.11.2, commit abc1234, bf16."


def test_plots(results: Path, tmp_path: Path):
    found = CliRunner().invoke(app, ["plot", "--csv", str(results), "--out", str(tmp_path / "images")])
    assert found.exit_code == 0, found.output
    images = sorted((tmp_path / "images").iterdir())
    assert [image.name for image in images] == ["loss_matmul.png", "loss_memory.png", "loss_time.png"]
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)


def test_errors_end_with_status_2(tmp_path: Path):
    found = CliRunner().invoke(app, ["plot", "--csv", str(tmp_path / "none.csv")])
    assert found.exit_code == 2
    assert "measure first" in found.output


def test_shapes_by_name():
    assert [shape.name for shape in select("B, sweep-d")] == ["B", *(f"sweep-d/{dim}" for dim in SWEEPS["sweep-d"][1])]
    assert SHAPES["F"].full
    assert not SHAPES["A64"].full
    with pytest.raises(KeyError, match="sweep-k"):
        select("A,Z")
