"""What kernels and XLA compile for: a sampler or explicit ids, sizes, dtype and options, drawn at random."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from cce_minus.kernels import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)
from cce_minus.kernels.negatives.samplers import Sampler

from tests.inputs import Case, Mode
from tests.loss import scalable
from tests.loss.expected import PLAINLY, How

SOFTMAX = (
    "grouped", "independent", "membership", "all", "linear", "popularity", "log_uniform", "in_batch", "in_batch_all",
    "mixed", "mixed", "hard", "shared_ids", "row_ids",
)  # fmt: skip
BINARY = ("grouped", "independent", "membership", "popularity", "log_uniform", "shared_ids", "row_ids")
KINDS = (*SOFTMAX, *(f"binary {kind}" for kind in BINARY), "sce")
MIXTURES = [
    pair
    for pair in itertools.product(("uniform", "popularity", "log_uniform", "in_batch"), repeat=2)
    if pair != ("in_batch", "in_batch")
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GROUPS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Sizes:
    """The largest ones; ``elements`` bounds N K D, which the plain implementation gathers. In a few dimensions
    items are alike, so that gradients cancel and any rounding is large beside them."""

    rows: int
    items: int
    dims: tuple[int, ...]
    elements: int


SIZES = {
    "small": Sizes(48, 130, (8, 8, 16, 20, 33, 50), 60_000),  # for the interpreter
    "large": Sizes(300, 1000, (8, 12, 20, 32, 50, 64, 64, 72, 100, 100, 128, 160), 3_000_000),
}


@dataclass(frozen=True)
class Signature:
    number: int
    kind: str
    dtype: torch.dtype
    case: Case | scalable.Case
    negatives: Sampler | None = None  # None: explicit ids
    how: How = PLAINLY

    def __str__(self) -> str:
        case = self.case
        sizes = f"N={case.num_rows} V={case.num_items} D={case.dim}"
        negatives = (
            "" if self.negatives is None else " " + re.sub(r"counts=.*?\), ", "", str(self.negatives), flags=re.S)
        )
        shown = {
            field: value
            for field, value in (vars(case) | vars(self.how)).items()
            if field not in ("name", "reason", "num_rows", "num_items", "dim", "mode", "seed")
            and value != getattr(type(case), field, getattr(How, field, None))
        }
        return f"{self.kind}, {str(self.dtype).removeprefix('torch.')}, {sizes}{negatives} {shown}"


def ragged(rng: np.random.Generator, most: int, least: int = 1) -> int:
    """A size up to ``most``: often beside a multiple of 16, sometimes tiny."""
    way = rng.random()
    if way < 0.15:
        size = int(rng.integers(1, 6))
    elif way < 0.5:
        size = 16 * int(rng.integers(1, max(2, most // 16 + 1))) + int(rng.integers(-1, 2))
    else:
        size = int(rng.integers(1, most + 1))
    return int(np.clip(size, least, most))


def chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


@functools.lru_cache(maxsize=32)
def signature(seed: int, number: int, size: str) -> Signature:
    """Signature ``number`` of a seed: kinds take turns, all else is drawn. One object, as samplers of counts are."""
    rng = np.random.default_rng([seed, 1, number])
    kind = KINDS[number % len(KINDS)]
    dtype = DTYPES[rng.integers(3)]
    if kind == "sce":
        return Signature(number, kind, dtype, _scalable(rng, SIZES[size]))
    return _signature(rng, number, kind, dtype, SIZES[size])


def _signature(rng: np.random.Generator, number: int, kind: str, dtype: torch.dtype, sizes: Sizes) -> Signature:
    binary, kind_of_draw = kind.startswith("binary "), kind.removeprefix("binary ")
    n, v, k, d = _sizes(rng, kind_of_draw, sizes)
    hits_kept = not kind_of_draw.startswith("in_batch") and kind_of_draw != "linear" and chance(rng, 0.25)
    if hits_kept and dtype != torch.float32:  # few negatives may all be the target: see data._cancels
        v, k = max(v, 40), max(k, 16)
    group = int(rng.choice(GROUPS if n > 16 else GROUPS[:3]))
    shuffle = chance(rng, 0.7)
    in_batch = kind_of_draw.startswith("in_batch")
    explicit = kind_of_draw in ("shared_ids", "row_ids")
    corrected = binary or chance(rng, 0.8)
    negatives: Sampler | None = None
    if kind_of_draw == "mixed":
        first, second = MIXTURES[rng.integers(len(MIXTURES))]
        in_batch = "in_batch" in (first, second)
        parts: list[Any] = [
            _sampler(rng, name, v, size, group, shuffle) for name, size in ((first, k), (second, ragged(rng, k)))
        ]
        negatives = MixedNegatives(*parts)
    elif not explicit:
        negatives = _sampler(rng, kind_of_draw, v, k, group, shuffle)
    if kind_of_draw == "in_batch_all":
        shuffle = True
    mode: Mode = "grouped"
    if kind_of_draw in get_args(Mode):
        mode = kind_of_draw  # type: ignore[assignment]
    elif kind_of_draw in ("membership", "linear"):
        mode = "independent" if kind_of_draw == "membership" else "all"
    gbce_t = float(rng.choice([0.0, 0.3, 1.0])) if binary and mode in ("grouped", "independent") else None
    gbce_t = gbce_t if isinstance(negatives, UniformNegatives) and chance(rng, 0.6) else None
    positive_weight = (1 - gbce_t * (1 - min(k / max(v - 1, 1), 1))) if gbce_t is not None else 1.0
    case = Case(
        f"fuzz-{number}", "drawn", mode, n, v, d, k,
        group_size=group if mode == "grouped" else 1,
        shuffle_rows=shuffle,
        has_bias=chance(rng, 0.6),
        softcap=float(rng.choice([0.7, 3.0, 30.0])) if chance(rng, 0.25) else None,
        logit_scale=float(rng.choice([1.0, 1.0, 0.5, 2.0, 1.7, -0.9])),
        remove_accidental_hits=in_batch or not hits_kept,
        ignore_index=int(rng.choice([-100, -100, -1, v // 2, v])),
        contiguous=chance(rng, 0.8),
        weighted=chance(rng, 0.4),
        reduction=str(rng.choice(["none", "none", "mean", "sum"])),  # type: ignore[arg-type]
        positive_weight=positive_weight if binary else None,
        gbce_t=gbce_t,
        knows_q=corrected and not binary and (in_batch or (explicit and chance(rng, 0.4))),
        has_history=chance(rng, 0.25),
        logq_correction=corrected or kind_of_draw == "linear",
    )  # fmt: skip
    return Signature(number, kind, dtype, case, negatives, _how(rng, case, dtype, kind_of_draw == "linear"))


def _sizes(rng: np.random.Generator, kind: str, sizes: Sizes) -> tuple[int, int, int, int]:
    n, v, d = ragged(rng, sizes.rows), ragged(rng, sizes.items), int(rng.choice(sizes.dims))
    if chance(rng, 0.2):
        k = v + int(rng.integers(-1, 2))  # about every item
    elif chance(rng, 0.5):
        k = ragged(rng, v)
    else:
        k = ragged(rng, max(1, v // 4))
    k = max(k, 1)
    if kind == "membership":
        v = max(v, 4)
        k = int(rng.integers(v // 2 + 1, v))
    elif kind == "independent":
        k = min(k, max(1, v // 2))
    columns = {"all": v, "linear": v, "in_batch_all": n, "in_batch": 64}.get(kind, k)
    while n * columns * d > sizes.elements and n > 1:
        n = n // 2 + 1 if n > 2 else 1
    return n, v, k, d


def _sampler(rng: np.random.Generator, name: str, v: int, k: int, group: int, shuffle: bool) -> Sampler:
    groups: dict[str, Any] = {"group_size": group, "shuffle_rows": shuffle}
    if name == "popularity":
        counts = np.floor(50 / (1 + rng.permutation(v))) + (chance(rng, 0.5) or v < 3)
        return PopularityNegatives(counts, k, float(rng.choice([0.0, 0.75, 1.0])), **groups)
    if name == "log_uniform":
        return LogUniformNegatives(k, **groups)
    if name == "in_batch":
        return InBatchNegatives(**groups)
    if name == "in_batch_all":
        return InBatchNegatives(None)
    if name == "hard":
        return HardNegatives(max(k, ragged(rng, v + 5)), k, **groups)
    if name in ("independent", "membership"):
        return UniformNegatives(k, 1)
    return AllItems() if name in ("all", "linear") else UniformNegatives(k, **groups)


def _how(rng: np.random.Generator, case: Case, dtype: torch.dtype, full: bool) -> How:
    half = dtype != torch.float32
    leaves = ("hidden", "table", "bias", "scale", "weight")
    frozen = tuple(name for name in leaves if chance(rng, 0.3)) if chance(rng, 0.3) else ()
    divisors = [number for number in (1, 2, 3, 5, 7) if case.num_rows % number == 0]
    return How(
        seed_kind=str(rng.choice(["int", "one", "words", "key"])),  # type: ignore[arg-type]
        scale="array" if chance(rng, 0.6) else "number",
        wide_table=half and chance(rng, 0.3),
        wide_bias=half and chance(rng, 0.3),
        frozen=frozen,
        leading=(int(rng.choice(divisors)),) if chance(rng, 0.4) else None,
        full=full,
        short_ints=chance(rng, 0.5),
    )


def _scalable(rng: np.random.Generator, sizes: Sizes) -> scalable.Case:
    n, v = ragged(rng, sizes.rows, 2), ragged(rng, sizes.items, 2)
    few = min(n, 100)
    return scalable.Case(
        "", n, v, ragged(rng, 9), ragged(rng, few + 8), ragged(rng, min(v, 130) + 8), int(rng.choice(sizes.dims[2:])),
        mix_x=chance(rng, 0.5),
        ignore_index=int(rng.choice([-100, 0, v])),
        has_bias=chance(rng, 0.5),
        softcap=3.0 if chance(rng, 0.3) else None,
        logit_scale=float(rng.choice([1.0, 1.3])),
        weighted=chance(rng, 0.5),
        reduction=str(rng.choice(["none", "mean", "sum"])),  # type: ignore[arg-type]
    )  # fmt: skip


def with_rows(signature: Signature, rows: int) -> Signature:
    """The same with another number of rows, for calls that are not compiled for it."""
    how = signature.how if rows == signature.case.num_rows else replace(signature.how, leading=None)
    return replace(signature, case=replace(signature.case, num_rows=rows), how=how)
