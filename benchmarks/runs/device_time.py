"""How long a GPU works in a stretch of a program, whichever framework's kernels they are."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_BUSY = ("kernel", "gpu_memset", "gpu_memcpy")
_HOST_COPIES = ("HtoD", "DtoH")


def prepare() -> None:
    """Sets up CUPTI; to be called before a process captures its first CUDA graph, whose kernels it would not see."""
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")  # with graphs, setting it up again may fail
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    with _profile():
        pass


class DeviceTrace:
    """Records what the process's GPU does between `start` and `stop`; ``seconds`` is how long it was busy, None where
    nothing was recorded."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._profile: Any = None

    def start(self) -> None:
        _wait()
        self._profile = _profile()
        self._profile.start()

    def stop(self) -> None:
        _wait()
        self._profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        self.seconds = busy_seconds(events)
        self._profile = None


def _profile() -> Any:
    """CUPTI sees every kernel of the process, JAX's too; without the host's activities there is little to record. Where
    there is no GPU, the host's take their place: a profile of nothing is refused."""
    return profile(activities=[ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # waits for every stream of the context that the frameworks share


def busy_seconds(events: Iterable[dict[str, Any]]) -> float | None:
    """The union of the times of kernels, fills and copies on the device in a trace of torch.profiler; None without one.

    What runs side by side counts once. Copies from and to the host are no work of the GPU.
    """
    spans = sorted(
        (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in events
        if event.get("cat") in _BUSY and not any(copy in event["name"] for copy in _HOST_COPIES)
    )
    if not spans:
        return None
    busy, until = 0.0, spans[0][0]
    for begin, end in spans:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy / 1e6
