"""The optimizers and schedules that a run may choose, which options belong to which, and the rate of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..option_checks import require_defaults

OPTIMIZERS = ("adamw", "adam", "adamax", "rmsprop", "sgd")
"""As ``torch.optim`` and Optax both define them, with the same numbers: betas 0.9 and 0.999 (adamw, adam, adamax),
smoothing 0.99 (rmsprop), eps 1e-8 beside the root."""

BETAS, SMOOTHING, EPS = (0.9, 0.999), 0.99, 1e-8

SCHEDULES = ("constant", "cosine", "linear")


def check_optimizer(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for options that the optimizer would ignore; each alone has been checked before."""
    if options["optimizer"] != "sgd":
        require_defaults(("momentum",), f"optimizer = {options['optimizer']}", options, defaults)


def learning_rate(update: int, total: int, *, peak: float, warmup_steps: int, schedule: str) -> float:
    """The rate of the optimizer's step ``update`` (from 0) of ``total``.

    ``peak * min(1, (update + 1) / warmup)``, from the warm-up's end on times 1 (constant), ``1 - p`` (linear) or
    ``(1 + cos(pi p)) / 2`` (cosine), where p rises from 0 at its last step to 1 after the last of all.
    """
    warmup = max(warmup_steps, 1)
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = (update + 1 - warmup) / max(total + 1 - warmup, 1)
    return peak * {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
