"""Seeds: what a draw follows from, as the two words that every implementation reads, and how a module's move on."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ...kernels.draws.permutation import DOMAIN_FOLD, GOLDEN, MIX_1, MIX_2, fold_seed
from ...kernels.draws.permutation import seed_words as words_of_int
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.numbers import as_index
from . import ops
from .rows import is_transformed

EXPECTED = "an int or an integer tensor of 1 or 2 elements"
STRIDE = 0x9E3779B97F4A7C15 - 2**64  # odd, so that 2^64 calls pass before a seed returns
SEED_DTYPES = (*ops.INTEGER_DTYPES, torch.uint32, torch.uint64)


def signed(value: int) -> int:
    """An int modulo 2^64, as int64 holds it."""
    return (value + 2**63) % 2**64 - 2**63


def _words_of_int(like: Tensor, high: int, low: int) -> Tensor:
    return torch.full((1,), signed(high << 32 | low), dtype=torch.int64, device=like.device).view(torch.int32)


# an operator, so that one compiled graph serves every int: constants would be compiled for, and inductor hands only
# int64 to code of its own
_words_of_int_operator = ops.operator(
    "seed_words",
    "(Tensor like, SymInt high, SymInt low) -> Tensor",
    _words_of_int,
    lambda like, high, low: like.new_empty(2, dtype=torch.int32),
)


def _words_of_tensor(seed: Tensor, device: torch.device) -> Tensor:
    if seed.dtype not in SEED_DTYPES:
        raise ArgumentTypeError("seed", EXPECTED, f"a tensor of {seed.dtype}")
    if seed.numel() not in (1, 2):
        raise ArgumentValueError("seed", "a tensor of 1 or 2 elements", tuple(seed.shape))
    if torch._C._functorch.is_batchedtensor(seed):  # type: ignore[attr-defined]
        raise ArgumentValueError("seed", "a tensor shared by the mapped rows", "a mapped tensor")
    if seed.device != device:
        raise ArgumentValueError("seed", f"device {device}, that of input", seed.device)
    value = seed.detach().to(torch.int64)
    if value.numel() == 2:
        high, low = value.reshape(-1).unbind()
        value = (high << 32) | (low & 0xFFFFFFFF)
    return value.reshape(()).reshape(1).view(torch.int32)  # by way of (), which forgets the stride of a slice


def drawn_seed(device: torch.device) -> Tensor:
    """(1,) int64 of the device's default generator."""
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device)


def seed_words(seed: object, device: torch.device, like: Tensor | None = None) -> Tensor:
    """A seed as two int32 words (low, high) on ``device``, without waiting for it.

    ``seed`` is an int, a tensor of one integer, or one of two integers taken as 32-bit words (high, low); all modulo
    2^64. None draws one from the default generator of the device. ``like`` is a tensor of the device, by which traced
    code finds it. Raises ArgumentTypeError or ArgumentValueError; an int, too, where a CUDA graph is captured, as every
    replay would draw the same.
    """
    if seed is None:
        return drawn_seed(device).view(torch.int32)
    if isinstance(seed, Tensor):
        return _words_of_tensor(seed, device)
    if torch.compiler.is_compiling() and isinstance(seed, int) and not isinstance(seed, bool):
        assert like is not None
        return _words_of_int_operator(like, *words_of_int(seed))
    value = as_index("seed", seed)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise ArgumentTypeError(
            "seed", "a tensor, or None, while a CUDA graph is captured: replays read it anew", "an int"
        )
    return torch.full((1,), signed(value), dtype=torch.int64, device=device).view(torch.int32)


def folded_seed(seed: object, index: int, input: Tensor) -> Tensor:
    """``fold_seed`` of what ``seed_words`` takes, on the device of ``input``: a seed (1,) int64."""
    device = input.device
    if seed is not None and not isinstance(seed, Tensor) and not torch.compiler.is_compiling():
        folded = signed(fold_seed(as_index("seed", seed), index))
        return torch.full((1,), folded, dtype=torch.int64, device=device)
    return _stream64(_stream64(seed_words(seed, device, input).view(torch.int64), DOMAIN_FOLD), index)


def _stream64(seed: Tensor, index: int) -> Tensor:
    """``permutation.stream64`` of int64: a tenth of the kernels that words of 32 bits take."""
    x = seed + signed((index + 1) * _number(GOLDEN))
    for bits, factor in ((30, MIX_1), (27, MIX_2)):
        x = _xor_shifted(x, bits) * signed(_number(factor))
    return _xor_shifted(x, 31)


def _xor_shifted(x: Tensor, bits: int) -> Tensor:
    return x ^ ((x >> bits) & (2 ** (64 - bits) - 1))  # whose shift repeats the sign


def _number(words: tuple[int, int]) -> int:
    return words[0] << 32 | words[1]


def drawn_start() -> int:
    """Where a module without a seed starts: a number of torch's default CPU generator, also where a mode makes no real
    tensors."""
    with _disable_current_modes():
        return int(torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device="cpu"))


# A recomputation (activation checkpointing) must draw what the first run drew, and not move the module on. It runs in a
# backward pass, with the random state of the first run restored; so a number of the CPU generator tells which run it
# repeats, wherever other calls came between. Only calls that may be repeated take one: those without grad mode
# (reentrant checkpoints, compiled code) or under hooks of saved tensors.
MOST_KEPT = 256
_kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()


def _may_be_recomputed() -> bool:
    if torch.is_inference_mode_enabled():
        return False
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # type: ignore[attr-defined]
    return hooks is not None or not torch.is_grad_enabled()


def _next_seed(progress: Tensor, start: int, traced: bool) -> Tensor:
    recomputes = torch._C._current_graph_task_id() != -1
    if not recomputes and not _may_be_recomputed():
        return _moved_on(progress, start)
    run = start, int(torch.randint(2**62, (1,), dtype=torch.int64, device="cpu"))
    if not recomputes:
        _kept[run] = _moved_on(progress, start)
        if len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
        return _kept[run].clone()
    if run in _kept:
        return _kept[run].clone()
    if traced:  # compiled code that recomputes hands in the progress of its first run
        return _moved_on(progress, start)
    raise ArgumentValueError(
        "seed",
        "a recomputation in the random state of its first run (torch.utils.checkpoint with preserve_rng_state=True)",
        "a call in a backward pass that repeats none",
    )


def _moved_on(progress: Tensor, start: int) -> Tensor:
    seed = progress + start
    progress.add_(STRIDE)
    return seed


_next_seed_operator = ops.operator(
    "next_seed",
    "(Tensor(a!) progress, int start, bool traced) -> Tensor",
    _next_seed,
    lambda progress, start, traced: torch.empty_like(progress),
)


def next_seed(progress: Tensor, start: int) -> Tensor:
    """The seed (1,) int64 of a module's next call, ``start + progress``, whose ``progress`` (1,) moves on by STRIDE.

    All on the device, so that compiled code and CUDA graphs see a new one each time. A recomputation in a backward pass
    gets the seed of the run it repeats, and raises where the random state is not that of a run.
    """
    if torch.compiler.is_compiling() or is_transformed() or progress.is_meta:
        return _next_seed_operator(progress, start, torch.compiler.is_compiling())
    return _next_seed(progress, start, False)
