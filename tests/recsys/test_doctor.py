"""What doctor tells of machines, working and broken, and of this one."""

from __future__ import annotations

import dataclasses
import importlib
import json
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys.cli import doctor_command
from cce_minus.recsys.cli.checked_step import Done, Results, errors
from cce_minus.recsys.cli.doctor_checks import (
    FAILED,
    NOTE,
    PASSED,
    Check,
    folder_checks,
    framework_checks,
    gpu_checks,
    package_checks,
    runs_here,
    step_checks,
)
from cce_minus.recsys.cli.framework_facts import Framework
from cce_minus.recsys.cli.machine import Folder, Gpu, Machine, Package, _on_bus, _version, this_machine
from typer.testing import CliRunner

PYTHON = Package("python", "3.11.7", ">=3.11")
H100 = Gpu("H100", 90, 80 * 2**30)
T4, P100 = Gpu("T4", 75, 15 * 2**30), Gpu("P100", 60, 16 * 2**30)
ON_GPU = Machine(PYTHON, "Linux", (H100,), "580.1, CUDA 13.0", on_bus=1)
ON_CPU = Machine(PYTHON, "Linux")
TORCH = Framework("torch", "13.0", None, True, ("sm_80", "sm_90", "compute_120"))
TORCH_CPU = Framework("torch", None, None, False)
JAX = Framework("jax", "13", None, True, torch_cuda="13.0", torch_has_gpu=True)


def of_machine(machine: Machine, framework: Framework) -> list[Check]:
    return [*package_checks(machine, framework), *gpu_checks(machine), *framework_checks(machine, framework)]


def changed(machine: Machine, **values: Any) -> Machine:
    return dataclasses.replace(machine, **values)


@pytest.mark.parametrize("machine", [ON_GPU, ON_CPU])
@pytest.mark.parametrize("framework", [TORCH, JAX])
def test_a_machine_that_works_passes(machine: Machine, framework: Framework):
    there = dataclasses.replace(framework, has_gpu=bool(machine.gpus))
    assert {check.status for check in of_machine(machine, there)} == {PASSED}
    assert runs_here(machine, there).found.startswith("Triton" if machine.gpus else "plain")


NO_TRITON = changed(ON_GPU, packages=(Package("triton", None, ">=3.6", False),))

BROKEN = {
    "no driver": (changed(ON_CPU, on_bus=2), TORCH_CPU, FAILED, "driver", "install NVIDIA's driver"),
    "a driver that does not start": (
        changed(ON_CPU, on_bus=1, driver="CUDA 13.0", trouble="CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        TORCH_CPU, FAILED, "driver", "restart the computer or its driver",
    ),
    "hidden": (
        changed(ON_GPU, gpus=(), visible=""), TORCH_CPU, NOTE, "gpu", "CUDA_VISIBLE_DEVICES='' hides what there is",
    ),
    "an old GPU": (changed(ON_GPU, gpus=(P100,)), TORCH_CPU, FAILED, "gpu 0", "the kernels know none older than 7.5"),
    "older than Triton's": (changed(ON_GPU, gpus=(T4,)), TORCH_CPU, NOTE, "gpu 0", "Triton supports 8.0 and newer"),
    "not for this GPU": (changed(ON_GPU, gpus=(T4,)), TORCH, FAILED, "torch on a GPU", "install a PyTorch whose build"),
    "exclusive": (
        changed(ON_GPU, gpus=(dataclasses.replace(H100, compute_mode="exclusive process"),)),
        TORCH, NOTE, "gpu 0", "one process at a time",
    ),
    "prohibited": (
        changed(ON_GPU, gpus=(dataclasses.replace(H100, compute_mode="prohibited"),)),
        TORCH, FAILED, "gpu 0", "nvidia-smi -c DEFAULT",
    ),
    "torch for CPUs": (ON_GPU, TORCH_CPU, FAILED, "torch on a GPU", "install PyTorch for CUDA"),
    "an old driver": (
        ON_GPU, Framework("torch", "13.0", None, False), FAILED, "torch on a GPU", "update NVIDIA's driver to one for",
    ),
    "ROCm": (
        ON_CPU, Framework("torch", None, "7.0", True), FAILED, "torch on a GPU", "the kernels are for NVIDIA GPUs",
    ),
    "jax for CPUs": (
        ON_GPU, Framework("jax", None, None, False), FAILED, "jax on a GPU", "pip install 'cce-minus[cuda13]'",
    ),
    "torch for CPUs beside jax": (
        ON_GPU, dataclasses.replace(JAX, torch_cuda=None, torch_has_gpu=False),
        FAILED, "torch beside jax", "the kernels are started by PyTorch",
    ),
    "preallocation": (
        ON_GPU, dataclasses.replace(JAX, preallocates=True),
        NOTE, "memory of jax", "XLA_PYTHON_CLIENT_PREALLOCATE=false",
    ),
    "no triton": (NO_TRITON, TORCH, FAILED, "triton", "pip install 'triton>=3.6'"),
    "no triton, which nothing needs": (
        changed(NO_TRITON, gpus=(), driver=None, on_bus=0), TORCH_CPU, NOTE, "triton", "only a GPU needs it",
    ),
    "an old package": (
        changed(ON_CPU, packages=(Package("torch", "2.9.0", ">=2.11", False),)),
        TORCH_CPU, FAILED, "torch", "pip install 'torch>=2.11'",
    ),
    "an old Python": (
        changed(ON_CPU, python=Package("python", "3.10.1", ">=3.11", False)), TORCH_CPU, FAILED, "python",
        "make an environment with Python >=3.11",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_has_a_line_that_says_what_to_do(case: str):
    machine, framework, status, name, advice = BROKEN[case]
    (found,) = [check for check in of_machine(machine, framework) if check.status != PASSED and check.name == name]
    assert found.status == status
    assert found.advice.startswith(advice)
    assert found.found
    if case in ("ROCm", "an old GPU"):
        there = dataclasses.replace(framework, has_gpu=True)
        assert runs_here(machine, there).found == "plain PyTorch with --device cpu"


def test_results_are_held_to_float64():
    exact = Results(np.array(2.0), np.ones((2, 2)), np.full((3, 2), -4.0))
    assert set(errors(exact, exact).values()) == {0}
    off = exact._replace(of_table=exact.of_table * np.array([1, 1.001]), loss=np.array(np.nan))
    statuses = [check.status for check in step_checks(Done("a CPU", off, 1, 0.1), errors(off, exact))]
    assert statuses == [FAILED, PASSED, FAILED, PASSED]  # loss, hidden states, table; seconds


def test_folders_are_looked_at():
    folders = Folder("here", ".", 2**40, True), Folder("full", "/f", 5, True), Folder("data", "/d", 2**40, False)
    checks = list(folder_checks(changed(ON_CPU, folders=folders)))
    assert [check.status for check in checks] == [PASSED, NOTE, FAILED]


def test_this_machine_and_its_bus_are_read(tmp_path: Path):
    machine = this_machine(["torch", "triton", "no-such-package"], ["recsys", "torch"], {"mine": str(tmp_path / "a/b")})
    assert [package.is_supported for package in machine.packages] == [True, machine.packages[1].is_supported, False]
    assert machine.packages[0].supported == ">=2.11"
    assert (machine.python.supported, machine.python.is_supported) == (">=3.11", True)
    assert machine.folders[-1].is_writable
    for number, (vendor, kind) in enumerate([("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x1002", "0x030000")]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
        (tmp_path / str(number) / "class").write_text(f"{kind}\n")
    assert _on_bus(tmp_path) == 1


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_command_checks_a_step_here(framework: str):
    app = importlib.import_module(f"cce_minus.{framework}_impl.cli").app
    result = CliRunner().invoke(app, ["doctor", "--json"])
    told = json.loads(result.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    for name in ("loss", "gradient of hidden states", "gradient of the table", "step", framework, "numpy", "runs here"):
        assert checks[name]["status"] == PASSED, checks[name]
    assert ("bridge" in checks) == (framework == "jax")
    assert result.exit_code == (0 if told["ok"] else 1)
    assert told["ok"] == all(check["status"] != FAILED for check in told["checks"])


def test_a_failure_is_a_line_and_status_1(monkeypatch: pytest.MonkeyPatch):
    def broken() -> Any:
        raise RuntimeError("no kernel image\nis available")

    app = importlib.import_module("cce_minus.torch_impl.cli").app
    module: Any = SimpleNamespace(facts=lambda: TORCH_CPU, step=broken)
    monkeypatch.setattr(doctor_command, "this_machine", lambda *_: ON_CPU)
    checks = list(doctor_command.examine("torch", lambda: module))
    assert [check.name for check in checks if check.status == FAILED] == ["step"]
    assert checks[-1].found == "RuntimeError: no kernel image is available"

    def missing() -> ModuleType:
        raise ImportError("libcudart.so.13: cannot open shared object file")

    checks = list(doctor_command.examine("torch", missing))
    assert [check.name for check in checks if check.status == FAILED] == ["start torch"]

    monkeypatch.setattr(doctor_command, "this_machine", lambda *_: changed(ON_CPU, on_bus=1))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("failed: driver: none, beside 1 NVIDIA GPU(s); install NVIDIA's driver")
    assert "ok      loss" in result.stdout


def test_a_package_may_have_the_module_of_another():
    assert _version("PIL") == metadata.version("pillow")
    assert _version("nothing-of-this-name") is None
