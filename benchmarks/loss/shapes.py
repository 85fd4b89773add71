"""The sizes that are measured, by name, and what a step at a size costs at least."""

from __future__ import annotations

from dataclasses import dataclass, replace

GROUP = 128  # rows that share negatives by default: the fewest table rows any sampler here touches


@dataclass(frozen=True)
class Shape:
    """N ``rows``, K ``negatives``, V ``items``, D ``dim``; K = V is full cross-entropy.

    ``losses``: the project's losses and samplers are measured there, instead of CCE- and its peers.
    """

    name: str
    rows: int
    negatives: int
    items: int
    dim: int
    losses: bool = False

    @property
    def full(self) -> bool:
        return self.negatives >= self.items

    @property
    def pairs(self) -> int:
        return self.rows * self.negatives

    @property
    def operations(self) -> int:
        """4 N K D each for the forward (scores, their average) and the backward (scores again, the table's
        gradient)."""
        return 8 * self.pairs * self.dim

    @property
    def least_bytes(self) -> int:
        """2-byte hidden states and table rows that are drawn, read by the forward and by the backward, and both
        gradients written once."""
        drawn = min(self.items, -(-self.rows // GROUP) * self.negatives + self.rows)
        return 2 * self.dim * (2 * self.rows + 2 * drawn + self.rows + self.items)

    def __str__(self) -> str:
        negatives = "" if self.full else f" K={self.negatives}"
        return f"{self.name}: N={self.rows}{negatives} V={self.items} D={self.dim}"


def _full(name: str, rows: int, items: int, dim: int) -> Shape:
    return Shape(name, rows, items, items, dim)


A = Shape("A", 16384, 512, 300_000, 256)
B = Shape("B", 32768, 1024, 1_000_000, 128)

SHAPES = {
    shape.name: shape
    for shape in (
        A,
        B,
        Shape("C", 131_072, 2048, 900_000, 256),
        Shape("D", 184_320, 4096, 210_000, 256),
        Shape("E", 65536, 65536, 1_000_000, 64),
        replace(A, name="A64", negatives=65536),
        replace(B, name="B64", negatives=65536),
        _full("F", 16384, 300_000, 256),
        _full("G", 32768, 1_000_000, 128),
        replace(B, name="losses-b", losses=True),
    )
}

# each varies one size of A
SWEEPS = {
    "sweep-k": ("negatives", (64, 256, 1024, 4096, 16384, 65536)),
    "sweep-n": ("rows", (2048, 8192, 32768, 131_072)),
    "sweep-v": ("items", (10_000, 100_000, 1_000_000, 3_000_000)),
    "sweep-d": ("dim", (32, 64, 100, 128, 256, 320, 512)),
}


def select(names: str) -> list[Shape]:
    """The shapes of a comma-separated list of names of shapes and sweeps; raises KeyError naming the choices."""
    found: list[Shape] = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name in SHAPES:
            found.append(SHAPES[name])
        elif name in SWEEPS:
            field, values = SWEEPS[name]
            found += [replace(A, name=f"{name}/{value}", **{field: value}) for value in values]
        else:
            raise KeyError(f"no shape {name!r}; there are {', '.join([*SHAPES, *SWEEPS])}")
    return found
