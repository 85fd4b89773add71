"""The command doctor of both frameworks' command lines."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Annotated, Any

import typer

from .checked_step import errors, inputs
from .doctor_checks import (
    FAILED,
    NAMES,
    PASSED,
    Check,
    folder_checks,
    framework_checks,
    gpu_checks,
    package_checks,
    passed,
    runs_here,
    step_checks,
)
from .machine import this_machine

PACKAGES = {
    "torch": ("torch", "triton", "numpy", "pyarrow", "safetensors", "lightning-fabric"),
    "jax": ("jax", "jaxlib", "flax", "optax", "torch", "triton", "numpy", "pyarrow", "safetensors"),
}


def add_doctor(app: typer.Typer, framework: str, load: Callable[[], ModuleType]) -> None:
    """Adds the command to ``app``. ``load`` imports the framework's module ``doctor``."""

    @app.command("doctor", help=f"Tell what {NAMES[framework]} and the kernels do on this machine, and check a step.")
    def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
        checks = list(examine(framework, load))
        failed = [check for check in checks if check.status == FAILED]
        if as_json:
            typer.echo(json.dumps({"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks]}))
        else:
            typer.echo(_table(checks))
            for check in failed:
                typer.echo(f"failed: {check.name}: {check.found}; {check.advice}", err=True)
        if failed:
            raise typer.Exit(1)


def examine(framework: str, load: Callable[[], ModuleType]) -> Iterator[Check]:
    """The checks of this machine, in the order in which they are told; ``load`` imports what knows the framework."""
    machine = this_machine(PACKAGES[framework], ("recsys", framework), _caches(framework, os.environ))
    yield passed("system", machine.system)
    module, trouble = _tried(load)
    facts, trouble = (None, trouble) if module is None else _tried(module.facts)
    yield from package_checks(machine, facts)
    yield from gpu_checks(machine)
    if module is None or facts is None:
        advice = f"pip install 'cce-minus[{framework}]' in a new environment"
        yield Check(f"start {framework}", FAILED, trouble, advice)
    else:
        yield from framework_checks(machine, facts)
        yield runs_here(machine, facts)
        yield from _steps(module)
    yield from folder_checks(machine)


def _steps(module: ModuleType) -> Iterator[Check]:
    done, trouble = _tried(module.step)
    if done is None:
        advice = "where a line above failed, mend that first; else report it with the output of --json"
        yield Check("step", FAILED, trouble, advice)
    else:
        yield from step_checks(done, errors(done.results, module.expected(inputs())))
    if hasattr(module, "bridge"):
        _, trouble = _tried(module.bridge)
        advice = "install PyTorch and JAX for the same CUDA: pip install 'cce-minus[cuda13]'"
        found = "PyTorch reads and writes JAX's own arrays"
        yield Check("bridge", FAILED, trouble, advice) if trouble else passed("bridge", found)


def _tried(work: Callable[[], Any]) -> tuple[Any, str]:
    """What ``work()`` returns, or None and the error in one line."""
    try:
        return work(), ""
    except Exception as error:  # whatever a broken installation raises
        return None, f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def _caches(framework: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Where compiled programs are kept, by what they are."""
    triton = environment.get("TRITON_CACHE_DIR") or os.path.join(environment.get("TRITON_HOME") or "~", ".triton/cache")
    kept = environment.get("JAX_COMPILATION_CACHE_DIR")
    return {"kernel cache": triton} | ({"XLA cache": kept} if framework == "jax" and kept else {})


def _table(checks: list[Check]) -> str:
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<7} {check.name:<{width}}  {check.found}")
        if check.status != PASSED:
            lines.append(f"{'':<7} {'':<{width}}  -> {check.advice}")
    return "\n".join(lines)
