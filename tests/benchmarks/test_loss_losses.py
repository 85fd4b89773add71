"""The losses and samplers that the loss benchmark measures beside CCE-: providers, plain SCE, rows and table. No GPU is
needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cce_minus.torch_impl import scalable_linear_cross_entropy
from rich.console import Console

from benchmarks.loss.gate import GateError, check
from benchmarks.loss.inputs import make_inputs
from benchmarks.loss.measure import Bench
from benchmarks.loss.plain_scalable import bucket_loss, draw_centres, plain_providers
from benchmarks.loss.plots import figures
from benchmarks.loss.provider import UNIFORM
from benchmarks.loss.providers_losses import bucket_sizes, loss_providers
from benchmarks.loss.providers_torch import torch_providers
from benchmarks.loss.results import COLUMNS, ResultsError, read
from benchmarks.loss.results import replace as replace_rows
from benchmarks.loss.runners import TorchRunner
from benchmarks.loss.shapes import SHAPES, Shape, select
from benchmarks.loss.table import markdown
from tests.loss.scalable import normals

TINY = Shape("tiny", 96, 200, 700, 16, losses=True)
IN_TORCH = [provider for provider in (*loss_providers(), *plain_providers()) if provider.framework == "torch"]
IN_JAX = [provider for provider in loss_providers() if provider.framework == "jax"]
RATES = {"matmul_tflops": 800.0, "copy_gb_s": 3000.0}
VERSIONS: dict[str, object] = {"gpu": "NVIDIA Test", "torch": "2", "triton": "3", "jax": "0", "commit": "abc"}


def named(name: str) -> Any:
    return next(provider for provider in IN_TORCH if provider.name == name)


def test_losses_have_a_shape_of_their_own():
    (shape,) = select("losses-b")
    assert replace(shape, name="B", losses=False) == SHAPES["B"]
    names = [provider.name for provider in (*IN_TORCH, *IN_JAX)]
    assert len(set(names)) == len(names)
    assert all(provider.belongs_to(shape) and not provider.belongs_to(SHAPES["B"]) for provider in (*IN_TORCH, *IN_JAX))
    assert not any(provider.belongs_to(shape) for provider in torch_providers())
    assert bucket_sizes(shape.rows) == {"n_buckets": 362, "bucket_size_x": 362, "bucket_size_y": 256}


def test_negatives_of_a_row():
    found = {provider.name: provider.candidates(SHAPES["losses-b"]) for provider in IN_TORCH}
    assert {name for name, count in found.items() if count == 1024} >= {
        UNIFORM,
        "popularity",
        "mixed",
        "hard",
        "BCE+",
        "gBCE",
    }
    assert (found["BCE"], found["in-batch"], found["in-batch, whole batch"], found["SCE"]) == (1, 128, 32768, 1023)


@pytest.mark.parametrize("provider", IN_TORCH, ids=lambda provider: provider.name)
def test_a_step(provider: Any):
    if "torch.compile" in provider.name:
        provider = replace(provider, loss=provider.loss._torchdynamo_orig_callable)  # no compiler is needed here
    runner = TorchRunner(provider, make_inputs(TINY, "uniform", "cpu"), None, print)
    runner.step()
    for leaf in (runner.hidden, runner.table):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
        assert float(leaf.grad.norm()) > 0


@pytest.mark.parametrize(
    "name", ["mixed", "in-batch, whole batch", "hard", "uniform, history", "gBCE", "SCE, mixed centres"]
)
def test_the_gate_compares_with_the_reference(name: str):
    provider = named(name)
    assert "beyond" not in check(provider, 16, "cpu")[1]
    with pytest.raises(GateError, match=f"{name}, D=16"):
        check(replace(provider, loss=lambda *a, **given: provider.loss(*a, **given) * 1.02), 16, "cpu")


def test_the_gate_in_jax():
    mixed = next(provider for provider in IN_JAX if provider.name == "mixed (JAX)")
    assert "beyond" not in check(mixed, 16, "cpu")[1]


@pytest.mark.parametrize("mix_x", [False, True])
def test_plain_scalable_is_the_projects(mix_x: bool):
    """With the same centres in float32; 90 places for 96 rows, so that some are in no bucket."""
    seed, sizes = 5, (9, 10, 40)
    shape = replace(TINY, items=120)
    inputs = make_inputs(shape, "uniform", "cpu")
    hidden, table = leaves = [x.float().requires_grad_() for x in (inputs.hidden, inputs.table)]
    drawn = torch.tensor(normals(seed, shape.rows if mix_x else sizes[0], sizes[0] if mix_x else shape.dim)).float()
    centres = drawn.T @ hidden.detach() if mix_x else drawn
    assert centres.shape == draw_centres(hidden, sizes[0], mix_x).shape
    names = ("n_buckets", "bucket_size_x", "bucket_size_y")
    ours = scalable_linear_cross_entropy(
        hidden, table, inputs.target, **dict(zip(names, sizes, strict=True)), mix_x=mix_x, seed=seed
    )  # fmt: skip
    plain = bucket_loss(hidden, table, inputs.target, centres, *sizes[1:])
    torch.testing.assert_close(plain, ours)
    got, want = (torch.autograd.grad(loss, leaves) for loss in (plain, ours))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_rows_and_table(tmp_path: Path):
    """Of measured steps: no floors and no share of a matrix product, times beside uniform's of the same framework."""
    providers = [named(name) for name in (UNIFORM, "in-batch", "BCE", "plain PyTorch SCE")]
    bench = Bench([*providers, *torch_providers()], "cpu", 2, 0.1, VERSIONS, RATES, Console(quiet=True))
    shape = replace(TINY, name="losses-b")
    rows = bench.measure(shape, "uniform")
    assert not bench.notes
    assert {str(row["provider"]): row["negatives"] for row in rows} == {
        UNIFORM: 200, "in-batch": 128, "BCE": 1, "plain PyTorch SCE": 19 * 19 * 256 // 96,
    }  # fmt: skip
    path = tmp_path / "loss.csv"
    in_jax = [row | {"provider": f"{row['provider']} (JAX)", "timing": "jit chained", "ms": 7.0} for row in rows]
    replace_rows(path, [row | {"ms": 3.0 if row["provider"] == UNIFORM else 6.0} for row in rows] + in_jax)
    (line,) = (line for line in markdown(read(path)).splitlines() if "| BCE |" in line)
    assert line == "| losses-b: N=96 K=1 V=700 D=16 | uniform | BCE |  | 6 | 6 | 2.00 |  |  |"
    assert "| BCE (JAX) |  |  | 7 | 1.00 |" in markdown(read(path))
    assert all(
        row[name] == "" for row in read(path) for name in COLUMNS if name.startswith(("floor", "tflops", "matmul_f"))
    )
    with pytest.raises(ResultsError, match="no rows"):
        figures(read(path))
