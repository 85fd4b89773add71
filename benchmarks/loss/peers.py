"""Implementations by others, read from checkouts in a directory that the user names.

    MemoryEfficientSRS/   the paper's released kernel (github.com/On-Point-RND/MemoryEfficientSRS)
    ml-cross-entropy/     Cut Cross-Entropy (github.com/apple/ml-cross-entropy)
    Liger-Kernel/         Liger's fused linear cross-entropy (github.com/linkedin/Liger-Kernel)

The first two both hold a package named ``cut_cross_entropy`` that imports itself by that name, so each is loaded with
the name to itself and forgotten by ``sys.modules`` afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .provider import PAPER, Loss, Provider, Unavailable
from .providers_torch import draw_uniform, every_item, uniform_ids
from .shapes import Shape

GRID_LIMIT = 65535  # of a CUDA grid's second dimension


@contextlib.contextmanager
def _alone(package: str, directory: Path | None, hidden: tuple[str, ...] = ()) -> Iterator[None]:
    """``package`` is importable from ``directory`` alone and nothing of it stays; modules named ``hidden`` seem not
    installed."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name == package or name.startswith(f"{package}.")]

    kept = {name: sys.modules.pop(name) for name in loaded()}
    concealed = {name: sys.modules.get(name) for name in hidden}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None there raises ImportError
    if directory is not None:
        sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        if directory is not None:
            sys.path.remove(str(directory))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(kept)
        for name, module in concealed.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _checkout(peers: Path | None, *parts: str) -> Path:
    if peers is None:
        raise Unavailable("no directory of peers named (--peers)")
    path = peers.joinpath(*parts).resolve()
    if not path.is_dir():
        raise Unavailable(f"no {path}")
    return path


def _paper(peers: Path | None) -> list[Provider]:
    with _alone("cut_cross_entropy", _checkout(peers, "MemoryEfficientSRS", "kernels")):
        cce = importlib.import_module("cut_cross_entropy.cce")

    def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
        # as its training code draws: uniform int64 ids, hits pointing behind the table, the target in column 0
        ids = draw_uniform(len(hidden), negatives, len(table), seed, hidden.device)
        ids[target[:, None] == ids] = len(table)
        params = cce.CCEParams(
            targets=target, valids=None, softcap=None, reduction="mean", filter_eps=None, shift=0,
            batch_shape=target.shape,
            use_kahan=False, item_inds=torch.hstack([target[:, None], ids]),
        )  # fmt: skip
        return cce.LinearCrossEntropyFunction.apply(hidden, table, None, params)

    def refuses(shape: Shape) -> str | None:
        if shape.negatives + 1 > GRID_LIMIT:
            return f"its backward launches a grid of (.., K + 1) programs, and CUDA's limit there is {GRID_LIMIT}"
        if shape.rows * (shape.negatives + 1) >= 2**31:
            return "its offsets into the ids are int32"
        return None

    # float16, to which its training code casts; the ids exist twice, beside a mask
    return [
        Provider(
            PAPER, "torch", False, loss, uniform_ids,
            dtype="float16", least_extra=lambda s: 17 * s.pairs, refuses=refuses,
        )
    ]  # fmt: skip


def _apple(peers: Path | None) -> list[Provider]:
    with _alone("cut_cross_entropy", _checkout(peers, "ml-cross-entropy")):
        package = importlib.import_module("cut_cross_entropy")

    def with_filter(filter_eps: str | None) -> Loss:
        def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
            return package.linear_cross_entropy(hidden, table, target, filter_eps=filter_eps, impl="cce")

        return loss

    return [
        Provider("Apple CCE", "torch", True, with_filter("auto"), every_item),
        Provider("Apple CCE, no filter", "torch", True, with_filter(None), every_item),
    ]


def _liger(peers: Path | None) -> list[Provider]:
    root = _checkout(peers, "Liger-Kernel", "src", "liger_kernel")
    # its packages import every operator, and look for transformers and peft: stand-ins hold just the paths
    with _alone("liger_kernel", None, hidden=("transformers", "peft")):
        for name, path in (("liger_kernel", root), ("liger_kernel.ops", root / "ops")):
            package = ModuleType(name)
            package.__path__ = [str(path)]
            sys.modules[name] = package
        function: Any = importlib.import_module(
            "liger_kernel.ops.fused_linear_cross_entropy"
        ).LigerFusedLinearCrossEntropyFunction

    def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
        return function.apply(hidden, table, target)[0]

    return [Provider("Liger", "torch", True, loss, every_item)]


def _torch(_: Path | None) -> list[Provider]:
    chunked = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if chunked is None:
        raise Unavailable(f"torch {torch.__version__} has no chunked torch.nn.functional.linear_cross_entropy")

    def loss(hidden: Tensor, table: Tensor, target: Tensor, negatives: int, seed: int | None) -> Tensor:
        return torch.nn.functional.linear_cross_entropy(hidden, table, target, options=chunked())

    return [Provider("torch linear_cross_entropy", "torch", True, loss, every_item)]


LOADERS = {PAPER: _paper, "Apple CCE": _apple, "Liger": _liger, "torch linear_cross_entropy": _torch}


def peer_providers(peers: Path | None) -> tuple[list[Provider], dict[str, str]]:
    """The peers that load, and why the others do not."""
    found: list[Provider] = []
    missing: dict[str, str] = {}
    for name, load in LOADERS.items():
        try:
            found += load(peers)
        except Unavailable as reason:
            missing[name] = str(reason)
        except Exception as error:  # a checkout that this Python, torch or Triton cannot import
            missing[name] = f"does not import: {type(error).__name__}: {error}"
    return found, missing
