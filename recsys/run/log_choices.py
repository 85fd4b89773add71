"""The loggers that a run may name beside its metrics.csv."""

from __future__ import annotations

import importlib.util

from ..errors import ConfigError

LOGGERS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""By name, the modules that a logger needs."""


def parse_loggers(text: str | None) -> tuple[str, ...]:
    """The names of a list such as ``tensorboard,mlflow``, none of None and ``none``, by which a run that goes on leaves
    those that it had. Raises ``ConfigError`` for others."""
    if text in (None, "none"):
        return ()
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(f"log_to: expected none, or names among {', '.join(LOGGERS)}, got {name!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"log_to: expected each name once, got {text}")
    return names


def require_installed(name: str) -> None:
    """Raises ``ConfigError`` where a package of the logger is missing; imports none of them."""
    for module in LOGGERS[name]:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"log_to: expected the package {module} for {name}, got none installed; "
                "pip install 'cce-minus[tracking]'"
            )
