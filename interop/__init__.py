"""The bridge: call a launcher of torch tensors from JAX, on XLA's own buffers, with no copy."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("cce_minus needs JAX here: pip install 'cce-minus[jax]'") from error

from .bridge import Launcher, call, gpu_numbers, local_gpus
from .manual_axes import as_varying, varying_axes
from .settings import in_auto_axes, own_settings

__all__ = [
    "Launcher",
    "as_varying",
    "call",
    "gpu_numbers",
    "in_auto_axes",
    "local_gpus",
    "own_settings",
    "varying_axes",
]
