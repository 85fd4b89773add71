"""A catalog sharded over devices under ``shard_map`` gives the oracle's losses and gradients of the shards' draws."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inputs import Case
from tests.loss.shard_cases import CASES, INTERPRETED, assert_right, rows_of

Results = dict[str, np.ndarray]
ROOT = Path(__file__).parents[2]


def start(path: Path, num_shards: int, impl: str, cases: list[str]) -> Results:
    """The cases' results in a process of so many devices."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={num_shards}"
    command = [sys.executable, "-m", "tests.loss.shards_jax", str(path), str(num_shards), impl, *cases]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(path))


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Results]:
    @functools.cache
    def found(test: str, num_shards: int, impl: str) -> Results:
        """Of all cases that this test is run with."""
        items = [item for item in request.session.items if item.nodeid.startswith(f"{request.node.nodeid}::{test}[")]
        cases = [item.callspec.params["case"].name for item in items]  # type: ignore[attr-defined]
        return start(tmp_path_factory.mktemp("shards") / "results.npz", num_shards, impl, cases)

    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="the devices are a CPU's")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(results: Callable[..., Results], case: Case):
    assert_case_right(results("test_reference", 4, "reference"), case, 4)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", INTERPRETED, ids=str)
def test_kernels(results: Callable[..., Results], case: Case):
    assert_case_right(results("test_kernels", 2, "triton"), case, 2)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gpus(results: Callable[..., Results], case: Case):
    assert_case_right(results("test_gpus", 2, "auto"), case, 2)


def assert_case_right(found: Results, case: Case, num_shards: int) -> None:
    ends = [rows.stop for rows in rows_of(case, num_shards)][:-1] if case.reduction == "none" else num_shards
    for kind in (f"{case.name} ", f"{case.name} rows "):
        got = {name.removeprefix(kind): value for name, value in found.items() if name.startswith(kind)}
        if not got:  # of working sets, where there is none
            continue
        losses = [part.reshape(part.shape if case.reduction == "none" else ()) for part in np.split(got["loss"], ends)]
        assert_right(got, losses, case)
