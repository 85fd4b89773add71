"""The row of a case and a framework, from processes of its own."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable

from ..runs.results import versions
from .cases import TORCH, WEAK, Case
from .workers import WorkersError, run_together

Say = Callable[[str], None]


def measure(provider: str, case: Case, gpus: bool, told: dict[str, object], say: Say) -> dict[str, object]:
    """A row of results, with what is ``told`` of the machine; without ``gpus``, of so many processes or devices of a
    CPU. Raises ``WorkersError``."""
    found, how = (_of_torch if provider == TORCH else _of_jax)(case, gpus, say)
    peak = found.get("peak_bytes", math.nan)
    return {
        "framework": provider, "kind": case.kind, "gpus": case.gpus, "items_per_gpu": case.items_of_each,
        "positions_per_gpu": case.positions, "dim": case.dim, "negatives": case.negatives, "dtype": "bfloat16",
        "table_dtype": case.table_dtype, "how": how, "ms": found["ms"],
        "ms_without_exchange": found["ms_without_exchange"],
        "exposed_ms": found["ms"] - found["ms_without_exchange"],
        "exchange_bytes": round(found["exchange_bytes"]), "dense_bytes": round(found["dense_bytes"]),
        "ddp_bytes": round(case.ddp_bytes), "peak_bytes": None if math.isnan(peak) else round(peak),
        "table_bytes": case.table_bytes, **told,
    }  # fmt: skip


def environment(case: Case, gpus: bool) -> dict[str, str]:
    """Of processes that see as many GPUs, or devices of a CPU, as a case has."""
    values = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "NCCL_NVLS_ENABLE": "0",  # sums by multicast need rights that containers often don't have, and hang without
    }
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(case.gpus)))
        return values | {"CUDA_VISIBLE_DEVICES": ",".join(seen.split(",")[: case.gpus])}
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={case.gpus}"
    return values | {"XLA_FLAGS": flags.strip(), "CUDA_VISIBLE_DEVICES": ""}


def _of_torch(case: Case, gpus: bool, say: Say) -> tuple[dict[str, float], str]:
    from .torch_ranks import CAPTURING, measure_rank

    how, captures = ("CUDA graph", True) if gpus else ("eager", False)
    while True:
        with tempfile.TemporaryDirectory() as folder:
            try:
                ranks = run_together(measure_rank, case.gpus, (case, folder, captures), environment(case, gpus))
                break
            except WorkersError as error:
                if not captures or CAPTURING not in error.stages:
                    raise
                # in new processes: what a failed capture leaves of NCCL and of the GPU is not to be relied on
                how, captures = f"eager: {str(error).splitlines()[0]:.200}", False
                say(f"not captured, as it fails: {error}")
    # the slowest rank's times and the largest bytes
    return {name: max(rank[name] for rank in ranks) for name in ranks[0]}, how


def _of_jax(case: Case, gpus: bool, say: Say) -> tuple[dict[str, float], str]:
    from .jax_devices import measure_devices

    (found,) = run_together(measure_devices, 1, (case, "gpu" if gpus else "cpu"), environment(case, gpus))
    return found, f"{case.steps} steps in a program" if case.kind == WEAK else "a program a step"


def machine(commit: str) -> dict[str, object]:
    """The card and the versions, from a process that leaves no memory of the GPU taken."""
    return run_together(_machine, 1, (commit,), {})[0]


def _machine(rank: int, tell: Say, commit: str) -> dict[str, object]:
    tell("asking for versions")
    told = versions(commit)
    return {name: told[name] for name in ("gpu", "torch", "triton", "jax", "commit")}
