"""The bridge: torch sees XLA's own buffers, nothing passes through the host, nothing compiles twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.interop import call, gpu_numbers
from jax import Array, ShapeDtypeStruct

Tensors = dict[str, torch.Tensor]

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32")


@dataclass(frozen=True)
class Static:
    """Stands in for a problem; a fresh one a call must be as good as the last."""

    factor: float


class Seen:
    """What the launchers below were given, since the last ``clear``."""

    pointers: dict[str, int] = {}  # noqa: RUF012
    state: dict[str, object] = {}  # noqa: RUF012
    calls = 0

    @classmethod
    def record(cls, outs: Tensors, ins: Tensors) -> None:
        cls.calls += 1
        cls.pointers = {name: tensor.data_ptr() for name, tensor in (outs | ins).items()}
        cls.state = {
            "grad": torch.is_grad_enabled(),
            "thread": threading.get_ident(),
            "contiguous": all(tensor.is_contiguous() for tensor in (outs | ins).values()),
            "dtypes": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in (outs | ins).items()},
        }
        if torch.cuda.is_available():
            cls.state["stream"] = torch.cuda.current_stream().cuda_stream


def scale(outs: Tensors, ins: Tensors, static: Static) -> None:
    Seen.record(outs, ins)
    torch.mul(ins["x"], static.factor, out=outs["y"])


def copy_all(outs: Tensors, ins: Tensors, static: None) -> None:
    Seen.record(outs, ins)
    for name, out in outs.items():
        out.copy_(ins[name.removesuffix("_copy")])


def scaled(x: Array, factor: float = 3.0) -> Array:
    return call(scale, {"y": ShapeDtypeStruct(x.shape, x.dtype)}, {"x": x}, Static(factor))["y"]


@pytest.fixture
def x() -> Array:
    return jax.block_until_ready(jnp.arange(1024.0).reshape(32, 32))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_torch_sees_the_buffers_of_jax(wrap: Callable[..., Callable[[Array], Array]], x: Array):
    y = jax.block_until_ready(wrap(scaled)(x))
    assert Seen.pointers == {"x": x.unsafe_buffer_pointer(), "y": y.unsafe_buffer_pointer()}
    np.testing.assert_array_equal(y, 3 * x)
    assert Seen.state["contiguous"]
    assert Seen.state["grad"] is False


def test_intermediate_and_donated_buffers(x: Array):
    function = jax.jit(lambda x: scaled(scaled(x + 1, 2.0) * 2, 0.5), donate_argnums=0)
    expected = 2 * (np.asarray(x) + 1)
    y = jax.block_until_ready(function(jnp.copy(x)))
    np.testing.assert_array_equal(y, expected)
    assert Seen.pointers["y"] == y.unsafe_buffer_pointer()


def test_every_dtype_and_empty_inputs():
    ins = {dtype: jnp.arange(6).astype(dtype).reshape(2, 3) for dtype in DTYPES} | {"scalar": jnp.float32(7)}
    outputs = {f"{name}_copy": ShapeDtypeStruct(array.shape, array.dtype) for name, array in ins.items()}
    empty = {"empty": jnp.zeros((0, 4))}
    outs = jax.block_until_ready(jax.jit(lambda ins: call(copy_all, outputs, ins, None))(ins | empty))
    for name, array in ins.items():
        np.testing.assert_array_equal(outs[f"{name}_copy"].astype(jnp.float32), array.astype(jnp.float32))
        assert Seen.pointers[name] == array.unsafe_buffer_pointer()
        assert Seen.pointers[f"{name}_copy"] == outs[f"{name}_copy"].unsafe_buffer_pointer()
    assert Seen.pointers["empty"] == 0
    seen: Any = Seen.state["dtypes"]
    assert {dtype: seen[dtype] for dtype in DTYPES} == dict(zip(DTYPES, DTYPES, strict=True))


def test_an_output_without_elements_is_refused():
    with pytest.raises(ValueError, match="outputs without elements"):
        call(copy_all, {"y": ShapeDtypeStruct((0, 4), jnp.float32)}, {}, None)


def fill(outs: Tensors, ins: Tensors, static: Static) -> None:
    assert not ins
    outs["y"].fill_(static.factor)


def test_no_inputs():
    assert call(fill, {"y": ShapeDtypeStruct((3,), jnp.float32)}, {}, Static(2.0))["y"].tolist() == [2, 2, 2]


def test_nothing_passes_through_the_host(x: Array, monkeypatch: pytest.MonkeyPatch):
    function = jax.jit(scaled)
    jax.block_until_ready(function(x))  # what happens once, at compilation, does not count
    copies: list[str] = []

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: object, **keywords: object) -> object:
            copies.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(owner, name, counted)

    for owner, names in (
        (np, ("asarray", "array", "copyto")),
        (jax, ("device_get", "device_put")),
        (torch, ("from_numpy", "tensor", "as_tensor")),
        (torch.Tensor, ("cpu", "cuda", "to", "clone", "contiguous", "numpy", "item", "tolist", "__array__")),
    ):
        for name in names:
            watch(owner, name)
    calls = Seen.calls
    with jax.transfer_guard("disallow"):
        y = jax.block_until_ready(function(x))
    assert Seen.calls == calls + 1
    assert copies == []
    torch.zeros(1).clone()
    assert copies == ["clone"], "the watch works"
    monkeypatch.undo()
    np.testing.assert_array_equal(y, 3 * x)


def test_lowered_to_a_buffer_callback_only(x: Array):
    text = jax.jit(scaled).lower(x).as_text()
    platform = "gpu" if jax.default_backend() == "gpu" else "cpu"
    assert text.count("custom_call") == text.count(f"custom_call @xla_buffer_python_{platform}_callback") == 1
    assert "has_side_effect = true" not in text


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_equal_call_does_not_compile_again(wrap: Callable[..., Callable[[Array], Array]], x: Array):
    function = wrap(lambda x: scaled(x, 1.5))
    jax.block_until_ready(function(x))
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, duration_secs, **_: compiled.append(event))
    try:
        jax.block_until_ready(function(x))
        assert [event for event in compiled if "compile" in event] == []
        jax.block_until_ready(wrap(lambda x: scaled(x, 2.5))(x))
        assert [event for event in compiled if "compile" in event] != [], "the listener works"
    finally:
        jax.monitoring.clear_event_listeners()


def test_under_scan_and_remat(x: Array):
    @jax.jit
    def run(x: Array) -> Array:
        return jax.lax.scan(lambda carry, _: (jax.checkpoint(scaled)(carry), None), x, None, length=3)[0]

    np.testing.assert_array_equal(run(x), 27 * x)


def fail(outs: Tensors, ins: Tensors, static: None) -> None:
    raise ValueError("the launcher failed")


def test_errors_of_the_launcher_arrive(x: Array):
    with pytest.raises(jax.errors.JaxRuntimeError, match="the launcher failed"):
        jax.block_until_ready(
            jax.jit(lambda x: call(fail, {"y": ShapeDtypeStruct(x.shape, x.dtype)}, {"x": x}, None))(x)
        )


@pytest.mark.gpu
def test_runs_under_the_stream_of_xla(x: Array):
    default = torch.cuda.default_stream().cuda_stream
    for _ in range(20):  # a race would show sooner or later
        y = jax.jit(lambda x: scaled(jnp.sin(x @ x), 2.0) / 2)(x)
        np.testing.assert_array_equal(y, jnp.sin(x @ x))
    assert Seen.state["stream"] != default


@pytest.mark.gpu
def test_numbers_of_the_gpu():
    major, minor = torch.cuda.get_device_capability(0)
    assert gpu_numbers(otherwise=(0, 0)) == (
        torch.cuda.get_device_properties(0).multi_processor_count,
        10 * major + minor,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fallback is the CPU's")
def test_numbers_without_a_gpu():
    assert gpu_numbers(otherwise=(7, 90)) == (7, 90)


def test_missing_jax_names_the_extra():
    script = "import sys; sys.modules['jax'] = None; import cce_minus.{}"
    for package in ("interop", "jax_impl"):
        run = subprocess.run(
            [sys.executable, "-c", script.format(package)], capture_output=True, text=True, check=False
        )
        assert "ImportError: cce_minus needs JAX here: pip install 'cce-minus[jax]'" in run.stderr


def test_neither_torch_nor_flax_is_imported_before_it_is_needed():
    script = """
import sys, jax.numpy as jnp
from cce_minus.jax_impl import UniformNegatives, sampled_linear_cross_entropy
sampled_linear_cross_entropy(jnp.ones((4, 3)), jnp.ones((9, 3)), jnp.arange(4), UniformNegatives(2), seed=0)
assert not {"torch", "triton", "flax"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"JAX_PLATFORMS": "cpu"})
