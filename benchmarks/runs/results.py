"""The CSV of whole runs: one row for each part, data set, method and framework."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from pathlib import Path

from ..study.results import ResultsError, Row, replace_rows
from ..study.results import read as read_rows

COLUMNS = (
    "part", "dataset", "method", "framework",
    "seconds", "steps", "gpu_seconds", "whole_seconds",
    "epochs", "first_epoch_seconds", "training_seconds", "test_ndcg@10",
    "ms", "mib",
    "gpu", "cores", "python", "torch", "triton", "jax", "peer", "commit",
)  # fmt: skip

KEY = ("part", "dataset", "method", "framework")

__all__ = ["COLUMNS", "ResultsError", "Row", "add", "read", "versions"]


def read(path: Path) -> list[Row]:
    """The rows of ``path``; none where it does not exist yet. Raises ``ResultsError`` for another version's."""
    return read_rows(path, COLUMNS)


def add(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Adds rows, in place of those of the same part, data set, method and framework."""
    replace_rows(path, rows, COLUMNS, key=KEY)


def versions(commit: str) -> dict[str, object]:
    """What every row tells of the machine and of the programs."""
    import platform

    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version_of(name) for name in ("torch", "triton", "jax")},
        "commit": commit,
    }


def version_of(package: str) -> str:
    """Empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
