"""``jax.experimental.buffer_callback`` around a launcher: XLA's buffers go in and out as torch tensors that view them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from jax import Array, ShapeDtypeStruct
from jax.experimental.buffer_callback import buffer_callback

from .manual_axes import as_varying, varying_axes

if TYPE_CHECKING:
    from torch import Tensor

Launcher = Callable[[dict[str, "Tensor"], dict[str, "Tensor"], Any], None]


@dataclass(frozen=True)
class _Callback:
    """What XLA calls. Equal for an equal launcher and static value, so that JAX finds what it compiled before."""

    launcher: Launcher
    static: Hashable

    def __call__(self, context: Any, outs: Mapping[str, Any], ins: Mapping[str, Any]) -> None:
        from .views import launch_on_views  # torch is not imported before a kernel runs

        launch_on_views(self.launcher, outs, ins, self.static, context)


def call(
    launcher: Launcher, outputs: Mapping[str, ShapeDtypeStruct], inputs: Mapping[str, Array], static: Hashable
) -> dict[str, Array]:
    """The outputs that ``launcher(outs, ins, static)`` writes, computed on XLA's buffers in place.

    ``outs`` and ``ins`` are torch tensors by name, contiguous, on the array's device. The launcher writes
    every element of every output (they come as garbage), reads inputs only, allocates nothing and waits for
    nothing; on a GPU it runs under XLA's stream. ``launcher`` is a module-level function and ``static``
    hashable: both key the compilation. Works on CPU and GPU, eagerly and under jit, scan, remat and shard_map;
    derivatives and vmap are the caller's to define.
    """
    function = buffer_callback(_Callback(launcher, static), dict(outputs), has_side_effect=False)
    return as_varying(function(dict(inputs)), varying_axes(inputs))


def multiprocessors(otherwise: int) -> int:
    """The multiprocessors of this process's GPUs, or ``otherwise`` where JAX has none; for sizes fixed at trace time."""
    if jax.default_backend() != "gpu":
        return otherwise
    from .views import gpu_multiprocessors

    return gpu_multiprocessors()
