"""What JAX says of this machine, and a step of its loss, for the command ``doctor``."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array

from ..interop import call
from ..kernels import UniformNegatives, negative_ids
from ..recsys.cli.checked_step import GROUP, ITEMS, NEGATIVES, ROWS, SEED, Done, Inputs, Results, inputs, reference
from ..recsys.cli.framework_facts import Framework
from .loss.cross_entropy import sampled_linear_cross_entropy

_PREALLOCATES = "XLA_PYTHON_CLIENT_PREALLOCATE"


def facts() -> Framework:
    """Whether this JAX finds a GPU and takes its memory at once, and whether the PyTorch beside it, whose launchers
    start the kernels, finds one too."""
    shares = os.environ.get(_PREALLOCATES, "true").lower() in ("0", "false") or _fraction() is not None
    os.environ.setdefault(_PREALLOCATES, "false")  # another program may have the GPU; XLA looks when it starts
    is_gpu = jax.default_backend() == "gpu"
    return Framework(
        name="jax",
        cuda=_cuda(),
        rocm=None,
        has_gpu=is_gpu,
        preallocates=is_gpu and not shares,
        torch_cuda=torch.version.cuda,
        torch_has_gpu=torch.cuda.is_available(),
    )


def _fraction() -> str | None:
    return os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or os.environ.get("XLA_CLIENT_MEM_FRACTION")


def _cuda() -> str | None:
    """The CUDA of JAX's plugin, None without one."""
    if importlib.util.find_spec("jax_plugins") is None:
        return None
    versions = ("13", "12")
    return next((each for each in versions if importlib.util.find_spec(f"jax_plugins.xla_cuda{each}")), None)


def expected(given: Inputs) -> Results:
    """What `step` should find, in float64."""
    ids = negative_ids(UniformNegatives(NEGATIVES, GROUP), num_rows=ROWS, num_items=ITEMS, seed=SEED)
    return reference(given, ids)


def step() -> Done:
    """Loss and gradients of the inputs, twice, on JAX's own device: by the kernels on a GPU, else in plain JAX."""
    hidden, table, target = map(jnp.asarray, inputs())

    @jax.jit
    def loss_and_gradients(hidden: Array, table: Array) -> tuple[Array, tuple[Array, Array]]:
        def loss(hidden: Array, table: Array) -> Array:
            return sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(NEGATIVES, GROUP), seed=SEED)

        return jax.value_and_grad(loss, (0, 1))(hidden, table)

    def once() -> tuple[Results, float]:
        began = time.perf_counter()
        loss, (of_hidden, of_table) = jax.block_until_ready(loss_and_gradients(hidden, table))
        return Results(*map(np.asarray, (loss, of_hidden, of_table))), time.perf_counter() - began

    (results, first), (_, second) = once(), once()
    device = jax.devices()[0]
    place = f"kernels on {device.device_kind}" if device.platform == "gpu" else "plain JAX on the CPU"
    return Done(place, results, first, second)


def bridge() -> None:
    """Has a PyTorch launcher double an array of JAX's, on its own buffers; raises ``ValueError`` where it comes out as
    another."""
    x = jnp.arange(1024.0)
    y = jax.block_until_ready(call(_double, {"y": jax.ShapeDtypeStruct(x.shape, x.dtype)}, {"x": x}, None)["y"])
    if not np.array_equal(y, 2 * np.asarray(x)):
        raise ValueError("PyTorch read or wrote other numbers than JAX's")


def _double(outs: Mapping[str, torch.Tensor], ins: Mapping[str, torch.Tensor], static: None) -> None:
    torch.mul(ins["x"], 2, out=outs["y"])
