"""The device of a run by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from ..recsys import ConfigError
from ..recsys.errors import LowMemoryError
from ..recsys.run.memory_estimate import NEEDED


def on_device(name: str) -> AbstractContextManager[object]:
    """Puts new arrays on the device; ``auto`` is JAX's own choice, a GPU where there is one. Raises ``ConfigError`` for
    a device that is not there."""
    try:
        if name == "auto":
            jax.devices()
            return nullcontext()
        return jax.default_device(jax.local_devices(backend=name)[0])
    except RuntimeError as error:
        raise ConfigError(f"device: expected one that JAX has, got {name} ({error})") from error


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises `LowMemoryError` where the memory does not hold what the options ask for."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # XLA's errors say what they are in their text alone.
        is_memory = str(error).startswith("RESOURCE_EXHAUSTED") or "Out of memory" in str(error)
        if not isinstance(error, MemoryError) and not is_memory:
            raise
        raise LowMemoryError(f"{NEEDED}, got: {(str(error) or type(error).__name__).splitlines()[0]:.200}") from error


def is_cpu() -> bool:
    """Whether the default device is a CPU."""
    return _default().platform == "cpu"


def memory() -> int:
    """Bytes of the default device's memory that JAX may take; on a CPU there is no such number."""
    return (_default().memory_stats() or {}).get("bytes_limit", 2**63)


def _default() -> Any:
    (device,) = jnp.zeros(()).devices()
    return device
