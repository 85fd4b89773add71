"""What is right and wrong with a machine for this project, from what is known of it: no check looks at anything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .checked_step import TOLERANCE, Done
from .framework_facts import Framework
from .machine import Machine, Package

OLDEST = 75
"""Compute capability, as 10 major + minor: the oldest that the kernels' tiles know."""

TRIED = 90
"""That tests and benchmarks run on."""

TRITONS_OLDEST = 80
"""The oldest that Triton says it supports."""

GIB = 2**30
LEAST_FREE = GIB
"""Bytes of a folder for data, checkpoints and compiled kernels."""

PASSED, NOTE, FAILED = "ok", "note", "failed"

NAMES = {"torch": "PyTorch", "jax": "JAX"}


@dataclass(frozen=True)
class Check:
    """What was looked at, what was ``found``, and, where it ``failed`` or is worth a ``note``, what to do."""

    name: str
    status: str
    found: str
    advice: str = ""


def passed(name: str, found: str) -> Check:
    return Check(name, PASSED, found)


def package_checks(machine: Machine, framework: Framework | None) -> Iterator[Check]:
    """Python and packages: what is missing, or another version than is supported."""
    for package in (machine.python, *machine.packages):
        found = f"{package.installed or 'not installed'} ({package.supported or 'any version'})"
        if package.is_supported:
            yield passed(package.name, found)
        elif package.name == "python":
            yield Check(package.name, FAILED, found, f"make an environment with Python {package.supported}")
        elif package.name == "triton" and not (machine.gpus or (framework and framework.has_gpu)):
            yield Check(package.name, NOTE, found, "only a GPU needs it")
        else:
            yield Check(package.name, FAILED, found, f"pip install '{_asked(package)}'")


def _asked(package: Package) -> str:
    return f"{package.name}{package.supported}"


def gpu_checks(machine: Machine) -> Iterator[Check]:
    """The GPUs and their driver."""
    if machine.trouble:
        advice = "restart the computer or its driver; in a container, use a driver library of the host's version"
        yield Check("driver", FAILED, f"{machine.driver}: {machine.trouble}", advice)
    elif machine.driver is None and machine.on_bus:
        advice = "install NVIDIA's driver until nvidia-smi lists the GPU; start a container with --gpus all"
        yield Check("driver", FAILED, f"none, beside {machine.on_bus} NVIDIA GPU(s)", advice)
    elif machine.driver is not None:
        yield passed("driver", machine.driver)
    if not machine.gpus and not machine.trouble:
        if machine.visible is not None and machine.driver is not None:
            advice = f"CUDA_VISIBLE_DEVICES={machine.visible!r} hides what there is; unset it to use a GPU"
            yield Check("gpu", NOTE, "none that is visible", advice)
        elif machine.driver is not None or not machine.on_bus:
            yield passed("gpu", "none")
    for number, gpu in enumerate(machine.gpus):
        capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
        found = f"{gpu.name}, compute capability {capability}, {gpu.memory / GIB:.0f} GiB, {gpu.compute_mode} mode"
        name = f"gpu {number}"
        if gpu.compute_mode == "prohibited":
            yield Check(name, FAILED, found, "nvidia-smi -c DEFAULT lets programs compute on it")
        elif gpu.capability < OLDEST:
            advice = "the kernels know none older than 7.5: train with --device cpu, in your own code on CPU tensors"
            yield Check(name, FAILED, found, advice)
        elif gpu.capability < TRITONS_OLDEST:
            advice = "Triton supports 8.0 and newer: the kernels compile for it, and were never tried on one"
            yield Check(name, NOTE, found, advice)
        elif gpu.compute_mode != "default":
            yield Check(name, NOTE, found, "one process at a time; nvidia-smi -c DEFAULT lets several in")
        else:
            yield passed(name, found)


def framework_checks(machine: Machine, framework: Framework) -> Iterator[Check]:
    """Whether the framework finds the GPU that is there, and what it does on it."""
    name, title = f"{framework.name} on a GPU", NAMES[framework.name]
    has_usable = any(gpu.capability >= OLDEST for gpu in machine.gpus)
    if framework.rocm is not None:
        advice = "the kernels are for NVIDIA GPUs, and were never tried on others: train with --device cpu"
        yield Check(name, FAILED, f"a build for ROCm {framework.rocm}", advice)
    elif framework.has_gpu and (unknown := _unknown(machine, framework)):
        found = f"a build for CUDA {framework.cuda} without kernels for {unknown}"
        advice = f"install a {title} whose build has them, as pytorch.org/get-started says, or --device cpu"
        yield Check(name, FAILED, found, advice)
    elif framework.has_gpu:
        yield passed(name, f"a build for CUDA {framework.cuda}, which finds the GPU")
    elif has_usable and framework.cuda is None:
        install = {
            "torch": "install PyTorch for CUDA, as pytorch.org/get-started says (pip's default on Linux)",
            "jax": "pip install 'cce-minus[cuda13]'",
        }[framework.name]
        yield Check(name, FAILED, f"a build of {title} without CUDA, beside a GPU", f"{install}, or --device cpu")
    elif has_usable:
        advice = f"update NVIDIA's driver to one for CUDA {framework.cuda}, or unset JAX_PLATFORMS if it is set"
        yield Check(name, FAILED, f"{title} for CUDA {framework.cuda} does not find the GPU", advice)
    if framework.name != "jax" or not framework.has_gpu:
        return
    if not framework.torch_has_gpu:
        found = "a build without CUDA" if framework.torch_cuda is None else f"no GPU, with CUDA {framework.torch_cuda}"
        advice = "the kernels are started by PyTorch: install it for CUDA, as pytorch.org/get-started says"
        yield Check("torch beside jax", FAILED, found, advice)
    if framework.preallocates:
        advice = "XLA_PYTHON_CLIENT_PREALLOCATE=false, or XLA_PYTHON_CLIENT_MEM_FRACTION, where others share the GPU"
        yield Check("memory of jax", NOTE, "XLA takes 75% of a GPU at its first use", advice)


def _unknown(machine: Machine, framework: Framework) -> str:
    """The first GPU that the framework's own kernels are not built for, as far as it tells; empty where there is none.
    A kernel runs on later minors of its major number, and as PTX (``compute_90``) on all later GPUs."""
    built = [
        (kind, int(number.rstrip("af"))) for kind, _, number in (a.partition("_") for a in framework.architectures)
    ]
    for gpu in machine.gpus if built else ():
        fits = (
            number <= gpu.capability and (kind == "compute" or number // 10 == gpu.capability // 10)
            for kind, number in built
        )
        if not any(fits):
            return f"the compute capability {gpu.capability // 10}.{gpu.capability % 10} of {gpu.name}"
    return ""


def step_checks(done: Done, errors: dict[str, float]) -> Iterator[Check]:
    """Whether a step's results are those of float64, and how long it took."""
    for name, error in errors.items():
        found = f"{error:.1e} of the largest number, at most {TOLERANCE:.0e}"
        if math.isnan(error) or error > TOLERANCE:
            advice = f"do not train with {done.place}: report it with the output of --json"
            yield Check(name, FAILED, found, advice)
        else:
            yield passed(name, found)
    yield passed("step", f"{done.place}: {done.first_seconds:.2f} s with compiling, then {done.second_seconds:.4f} s")


def folder_checks(machine: Machine) -> Iterator[Check]:
    """Room and rights where data, runs and compiled kernels go."""
    for folder in machine.folders:
        found = f"{folder.path}, {folder.free / GIB:.1f} GiB free"
        if not folder.is_writable:
            yield Check(folder.name, FAILED, f"{folder.path} cannot be written", "change its rights, or name another")
        elif folder.free < LEAST_FREE:
            yield Check(folder.name, NOTE, found, "make room: checkpoints and compiled kernels may not fit")
        else:
            yield passed(folder.name, found)


def runs_here(machine: Machine, framework: Framework) -> Check:
    """What a call does here, and what it refuses."""
    title = NAMES[framework.name]
    if framework.has_gpu and (framework.rocm is not None or any(gpu.capability < OLDEST for gpu in machine.gpus)):
        return passed("runs here", f"plain {title} with --device cpu")
    if framework.has_gpu:
        is_tried = all(gpu.capability == TRIED for gpu in machine.gpus)
        told = "" if is_tried else "; tests and benchmarks of this project ran on compute capability 9.0 alone"
        return passed("runs here", f"Triton kernels on the GPU, plain {title} with --device cpu{told}")
    refused = "--device cuda and impl='triton' are refused (ConfigError, ArgumentValueError)"
    return passed("runs here", f"plain {title} on the CPU; {refused}")
