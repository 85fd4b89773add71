"""A catalog sharded over processes gives the oracle's losses and gradients of the shards' draws."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inputs import Case
from tests.loss.shard_cases import CASES, HALVES, INTERPRETED, ON_ROWS, SHARDS, assert_right, interleaved

Results = list[dict[str, np.ndarray]]  # of each rank
ROOT = Path(__file__).parents[2]


def start(folder: Path, num_ranks: int, impl: str, device: str) -> Results:
    """Every case's results, of all ranks, which run side by side."""
    processes = []
    for rank in range(num_ranks):
        command = [sys.executable, "-m", "tests.loss.ranks_torch", str(folder), str(rank), str(num_ranks), impl, device]
        with (folder / f"{rank}.txt").open("w") as log:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
    try:
        failed = [process.wait(timeout=300) != 0 for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(failed), [(folder / f"{rank}.txt").read_text()[-2000:] for rank in range(num_ranks)]
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Results]:
    return functools.cache(lambda *how: start(tmp_path_factory.mktemp("ranks"), *how))


@pytest.mark.parametrize("num_ranks", SHARDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference(results: Callable[..., Results], case: Case, num_ranks: int):
    assert_ranks_right(results(num_ranks, "reference", "cpu"), case)


@pytest.mark.parametrize("case", HALVES, ids=str)
def test_bfloat16(results: Callable[..., Results], case: Case):
    assert_ranks_right(results(4, "reference", "cpu"), case, torch.bfloat16, "bfloat16 ")


@pytest.mark.parametrize("num_ranks", SHARDS)
@pytest.mark.parametrize("case", ON_ROWS, ids=str)
def test_working_sets(results: Callable[..., Results], case: Case, num_ranks: int):
    assert_ranks_right(results(num_ranks, "reference", "cpu"), case, kind="rows ")


@pytest.mark.interpreter
@pytest.mark.parametrize("case", INTERPRETED, ids=str)
def test_kernels(results: Callable[..., Results], case: Case):
    for kind in ("", "rows ") if case in ON_ROWS else ("",):
        assert_ranks_right(results(2, "triton", "cpu"), case, kind=kind)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gpus(results: Callable[..., Results], case: Case):
    assert_ranks_right(results(2, "triton", "cuda"), case)


def assert_ranks_right(of_ranks: Results, case: Case, dtype: torch.dtype = torch.float32, kind: str = "") -> None:
    def of(name: str) -> list[np.ndarray]:
        return [result[f"{case.name} {kind}{name}"] for result in of_ranks]

    got = {name: np.concatenate(of(name)) for name in ("lse", "dhidden", *(["dweight"] if case.weighted else []))}
    got |= {name: interleaved(of(name), 0) for name in ("dtable", *(["dbias"] if case.has_bias else []))}
    assert_right(got | {"dscale": np.sum(of("dscale"))}, of("loss"), case, dtype)
