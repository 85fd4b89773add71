"""What is measured: options of the training commands, the parts of the benchmark, and the seconds that are aimed at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]

FRAMEWORKS = ("torch", "jax")

_SASREC: Options = {"num_blocks": 2, "num_heads": 2, "dim": 128, "max_length": 50, "batch_size": 256, "seed": 1}
_SASREC |= {"learning_rate": 1e-3, "warmup_steps": 100, "group_by_length": False}

GIT_COMMITS: Options = {**_SASREC, "dropout": 0.3, "num_negatives": 1024, "precision": "bf16"}

COMMAND: Options = {**GIT_COMMITS, "epochs": 10, "patience": 10}

# Without validation a run may not choose its epoch: it trains on the validation items, and the last epoch counts.
MILLION: Options = {"dim": 64, "max_length": 50, "batch_size": 512, "num_negatives": 1024, "precision": "bf16"}
MILLION |= {"learning_rate": 1e-3, "epochs": 4, "train_on_valid": True, "seed": 1, "warmup_steps": 60}
MILLION |= {"group_by_length": False}

QUALITY: Options = {**_SASREC, "negatives": "all", "dropout": 0.5, "precision": "bf16", "learning_rate": 3e-3}
QUALITY |= {"schedule": "cosine", "epochs": 16, "patience": 5}

LEAST_NDCG = 0.043

PEERS: dict[str, tuple[Options, Options]] = {
    "256 negatives": ({"num_negatives": 256}, {"loss": "sampled_softmax", "n_negatives": 256}),
    "every item": ({"negatives": "all", "num_negatives": 0}, {"loss": "softmax"}),
}
"""A loss by name: options of the training commands, and RecTools' of its SASRec."""

PARTS = {
    "epoch": "an epoch's steps against the GPU's work in them, and with validation and checkpoint",
    "command": "the whole command, ten epochs, in a new process, with empty and with filled caches of kernels",
    "million": "the whole command on a log of a million items",
    "quality": "the whole command up to a quality",
    "ranking": "ranks and the best items of users among a catalog",
    "peer": "an epoch's steps beside RecTools'",
}

EMPTY, WARM = "empty caches", "warm caches"
STEPS, DETERMINISTIC = "1024 negatives", "1024 negatives, deterministic"


@dataclass(frozen=True)
class Ranked:
    """Users who are ranked at once: their ranks and ``k`` best items, with ``seen`` items a user left out."""

    users: int
    items: int
    dim: int
    k: int
    seen: int = 0

    @property
    def dataset(self) -> str:
        return f"{self.users} users, {self.items:,} items, D={self.dim}".replace(",000,000", "M").replace(",000", "k")

    @property
    def method(self) -> str:
        return f"k={self.k}" + (f", {self.seen} seen" if self.seen else "")


RANKINGS = tuple(
    Ranked(*sizes, k=k, seen=seen)
    for sizes in ((512, 1_000_000, 64), (256, 136_000, 128))
    for k, seen in ((10, 0), (10, 50), (1000, 0))
)


@dataclass(frozen=True)
class Target:
    """Seconds, or a ratio of seconds, that a row is to stay within."""

    column: str
    most: float


def targets(part: str, method: str, framework: str) -> list[Target]:
    """What is aimed at in a row of a framework of ours; none where nothing is."""
    if part == "epoch":
        if method != STEPS:
            return []
        return [Target("steps_over_gpu", 1.2), Target("whole_over_gpu", 1.6)]
    seconds = _SECONDS.get((part, method))
    return [Target("seconds", seconds[framework])] if seconds and framework in seconds else []


_SECONDS: dict[tuple[str, str], dict[str, float]] = {
    ("command", WARM): {"torch": 15, "jax": 22},
    ("command", EMPTY): {"torch": 30, "jax": 40},
    ("million", WARM): {"torch": 16, "jax": 22},
    ("quality", WARM): {"torch": 25, "jax": 35},
}
