"""``jax.experimental.buffer_callback`` around a launcher: XLA's buffers go in and out as torch tensors that view
them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax import Array, ShapeDtypeStruct
from jax.experimental.buffer_callback import buffer_callback

from .manual_axes import as_varying, varying_axes
from .settings import in_mesh

if TYPE_CHECKING:
    from torch import Tensor

Launcher = Callable[[dict[str, "Tensor"], dict[str, "Tensor"], Any], None]


@dataclass(frozen=True)
class _Callback:
    """What XLA calls. Equal for an equal launcher and static value, so that JAX finds what it compiled before."""

    launcher: Launcher
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    static: Hashable

    def __call__(self, context: Any, outs: Sequence[Any], *ins: Any) -> None:
        from .views import launch_on_views  # torch is not imported before a kernel runs

        named_outs = dict(zip(self.outputs, outs, strict=True))
        launch_on_views(self.launcher, named_outs, dict(zip(self.inputs, ins, strict=True)), self.static, context)


def call(
    launcher: Launcher,
    outputs: Mapping[str, ShapeDtypeStruct],
    inputs: Mapping[str, Array],
    static: Hashable,
    in_place: Mapping[str, str] | None = None,
) -> dict[str, Array]:
    """The outputs that ``launcher(outs, ins, static)`` writes, computed on XLA's buffers in place.

    ``outs`` and ``ins`` are torch tensors by name, contiguous, on the array's device. The launcher writes
    every element of every output (they come as garbage), reads inputs only, allocates nothing and waits for
    nothing; on a GPU it runs under XLA's stream, or under the capture of a CUDA graph that XLA replays in later
    calls. ``launcher`` is a module-level function and ``static`` hashable: both key the compilation. ``in_place``
    names outputs that overwrite an input: output by input, which XLA copies first where it is of further use.
    Works on CPU and GPU, eagerly and under jit, scan, remat and shard_map;
    derivatives and vmap are the caller's to define. No output may be empty: XLA's partitioner of several GPUs ends the
    process where an array without elements leaves a ``shard_map``.
    """
    empty = [name for name, output in outputs.items() if not output.size]
    if empty:
        raise ValueError(f"outputs without elements: {empty}")
    out_names, in_names = tuple(outputs), tuple(inputs)
    aliases = {in_names.index(name): out_names.index(output) for name, output in (in_place or {}).items()}
    callback = _Callback(launcher, out_names, in_names, static)
    function = buffer_callback(
        callback,
        list(outputs.values()),
        has_side_effect=False,
        input_output_aliases=aliases,
        command_buffer_compatible=True,
    )
    arrays = as_varying(in_mesh(function(*inputs.values())), varying_axes(inputs))
    return dict(zip(out_names, arrays, strict=True))


def local_gpus() -> tuple[int, ...]:
    """The numbers of this process's GPUs. A call that is traced may run on any of them, under ``shard_map`` on
    several."""
    if jax.default_backend() != "gpu":
        return ()
    return tuple(device.local_hardware_id for device in jax.local_devices())


def gpu_numbers(otherwise: tuple[int, int]) -> tuple[int, int]:
    """Multiprocessors of a GPU and 10 major + minor of its compute capability, the least of this process's GPUs, or
    ``otherwise`` where JAX has none; for sizes fixed at trace time."""
    gpus = local_gpus()
    if not gpus:
        return otherwise
    from .views import numbers_of_gpu

    multiprocessors, capabilities = zip(*map(numbers_of_gpu, gpus), strict=True)
    return min(multiprocessors), min(capabilities)
