"""The device of a run by its name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import jax

from ..recsys import ConfigError


def on_device(name: str) -> AbstractContextManager[object]:
    """Puts new arrays on the device; ``auto`` is JAX's own choice, a GPU where there is one. Raises ``ConfigError`` for
    a device that is not there."""
    try:
        if name == "auto":
            jax.devices()
            return nullcontext()
        return jax.default_device(jax.devices(name)[0])
    except RuntimeError as error:
        raise ConfigError(f"device: expected one that JAX has, got {name} ({error})") from error
