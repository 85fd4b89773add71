"""From the public call to the first launch: few functions carry the sampler, as it answers for itself at once."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import FrameType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.loss import ops as jax_ops
from cce_minus.kernels import HardNegatives, LogUniformNegatives, UniformNegatives
from cce_minus.kernels.launch.programs import Program

ROOMS = tuple(str(Path(inspect.getfile(Program)).parents[2] / room) for room in ("kernels", "torch_impl", "jax_impl"))
MOST_FRAMES = 6
SAMPLERS = [UniformNegatives(8, 16), LogUniformNegatives(8, 16), HardNegatives(20, 8, 16)]


class LaunchedError(Exception):
    pass


def holds(value: Any, sampler: Any) -> bool:
    if value is sampler:
        return True
    if isinstance(value, (tuple, list)):
        return any(holds(each, sampler) for each in value)
    return isinstance(value, dict) and holds(list(value.values()), sampler)


def frames_with(sampler: Any) -> tuple[list[str], list[str]]:
    """(the project's functions on the stack, those of them with a variable that is the sampler), outermost last."""
    frame: FrameType | None = inspect.currentframe()
    ours, holding = [], []
    while frame is not None:
        if frame.f_code.co_filename.startswith(ROOMS):
            ours.append(frame.f_code.co_qualname)
            if holds(dict(frame.f_locals), sampler):
                holding.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return ours, holding


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ends a call at its first launch: torch's, or the callback that launches for JAX."""
    seen: dict[str, Any] = {}

    def stop(*_: Any, **__: Any) -> None:
        seen["frames"] = frames_with(seen["sampler"])
        raise LaunchedError

    monkeypatch.setattr(Program, "run", stop)
    monkeypatch.setattr(jax_ops, "call", stop)
    return seen


@pytest.mark.interpreter
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_few_frames_hold_the_sampler(framework: str, sampler: Any, stack: dict[str, Any]):
    stack["sampler"] = sampler
    hidden, table, target = np.ones((40, 16), np.float32), np.ones((90, 16), np.float32), np.arange(40)
    implementation = importlib.import_module(f"cce_minus.{framework}_impl")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    as_array = jnp.asarray if framework == "jax" else lambda array: torch.from_numpy(array).to(device)
    arrays = [as_array(array) for array in (hidden, table, target)]
    with pytest.raises(LaunchedError):
        implementation.sampled_linear_cross_entropy(*arrays, sampler, seed=1, impl="triton")
    ours, holding = stack["frames"]
    assert "sampled_linear_cross_entropy" in holding
    assert len(holding) <= MOST_FRAMES, holding
    assert len(ours) > len(holding)
