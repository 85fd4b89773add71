"""What is measured: whole training steps whose catalog grows with the GPUs, and a loss whose catalog they divide."""

from __future__ import annotations

from dataclasses import dataclass

from ..loss.shapes import GROUP, SHAPES

WEAK, STRONG = "weak", "strong"
KINDS = {
    WEAK: "training steps of SASRec, items and positions a GPU kept",
    STRONG: "full cross-entropy, forward and backward, items and positions in all kept",
}
TORCH, JAX = "torch", "jax"
PROVIDERS = {TORCH: "PyTorch", JAX: "JAX"}
GPUS = (1, 2, 4)

GOALS = {(WEAK, 2): 0.9, (WEAK, 4): 0.85, (STRONG, 2): 1.8, (STRONG, 4): 3.4}
"""The least that is expected of so many GPUs: efficiency, a step's time on one GPU over theirs, and speed-up."""


@dataclass(frozen=True)
class Case:
    """A step of each of ``gpus`` GPUs on ``positions`` of its own, sequences of ``length`` in a training step, with
    ``negatives`` from a table of ``items`` vectors of width ``dim`` in ``table_dtype``, which all GPUs have together.

    It is timed in ``rounds`` of ``steps`` steps that follow each other.
    """

    kind: str
    gpus: int
    items: int
    positions: int
    length: int
    dim: int
    negatives: int
    table_dtype: str
    heads: int = 2
    rounds: int = 9
    steps: int = 30

    @property
    def items_of_each(self) -> int:
        return self.items // self.gpus

    @property
    def table_bytes(self) -> int:
        """Of one GPU's part of the table."""
        return self.items_of_each * self.dim * (2 if self.table_dtype == "bfloat16" else 4)

    @property
    def ddp_bytes(self) -> float:
        """What each GPU would send in a step, were the whole table on all of them and its dense gradient summed by a
        ring's all-reduce."""
        return 2 * (self.gpus - 1) / self.gpus * self.gpus * self.table_bytes

    @property
    def samples(self) -> tuple[int, int]:
        """Of the sampler: negatives, and rows that share them."""
        return self.negatives, GROUP


def case_of(kind: str, gpus: int) -> Case:
    """What is measured of a kind on so many GPUs."""
    if kind == WEAK:
        return Case(kind, gpus, 25_000_000 * gpus, 25_600, 200, 128, 1024, "float32")
    shape = SHAPES["G"]
    return Case(kind, gpus, shape.items, shape.rows // gpus, 0, shape.dim, shape.items, "bfloat16")
