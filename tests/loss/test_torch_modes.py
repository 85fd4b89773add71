"""What is set globally in torch neither changes a result nor is left in a cache."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.torch_impl import (
    ArgumentError,
    ArgumentTypeError,
    ArgumentValueError,
    HardNegatives,
    History,
    InBatchNegatives,
    MixedNegatives,
    PopularityNegatives,
    SampledLinearCrossEntropyLoss,
    UniformNegatives,
    linear_cross_entropy,
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
    update_frequencies,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

N, V, D = 20, 30, 16
GENERATOR = torch.Generator().manual_seed(0)
HIDDEN, TABLE = (torch.randn(rows, D, generator=GENERATOR) for rows in (N, V))
BIAS, WEIGHT, SCALE = torch.randn(V, generator=GENERATOR), torch.rand(N, generator=GENERATOR), torch.tensor(0.7)
TARGET = torch.randint(0, V, (N,), generator=GENERATOR)
TARGET[3] = -100
LOG_Q = torch.full((V,), 1 / V).log()
HISTORY = History(torch.zeros(N, dtype=torch.long), torch.tensor([0, 2]), torch.tensor([1, 4]))


def weighted() -> PopularityNegatives:
    return PopularityNegatives(np.arange(1, V + 1), 8, group_size=16)


def sampled(negatives: Any, **options: Any) -> Callable[..., Tensor]:
    def call(h: Tensor, c: Tensor, y: Tensor, **given: Any) -> Tensor:
        return sampled_linear_cross_entropy(h, c, y, negatives, seed=3, **options, **given)

    return call


LOSSES: dict[str, Callable[..., Tensor]] = {
    "full": linear_cross_entropy,
    "independent": sampled(UniformNegatives(5, 1)),
    "history": lambda h, c, y, **given: sampled_linear_cross_entropy(
        h, c, y, UniformNegatives(5), seed=3, history=History(*(each.to(h.device) for each in HISTORY)), **given
    ),
    "weighted": sampled(weighted()),
    "mixed": lambda h, c, y, **given: sampled_linear_cross_entropy(
        h, c, y, MixedNegatives(UniformNegatives(5), InBatchNegatives()), seed=3, log_q=LOG_Q.to(h.device), **given
    ),
    "hard": sampled(HardNegatives(20, 5)),
    "binary": lambda h, c, y, **given: sampled_linear_binary_cross_entropy(
        h, c, y, weighted(), seed=3, **given
    ),
    "scalable": lambda h, c, y, **given: scalable_linear_cross_entropy(
        h, c, y, n_buckets=2, bucket_size_x=4, bucket_size_y=5, mix_x=True, seed=3, **given
    ),
}  # fmt: skip


def results(loss: Callable[..., Tensor], inside: Any = None, backward_inside: Any = None, **options: Any) -> list:
    h, c, b, w, s = (each.clone().requires_grad_() for each in (HIDDEN, TABLE, BIAS, WEIGHT, SCALE))
    with inside or contextlib.nullcontext():
        value = loss(h, c, TARGET, linear_bias=b, sample_weight=w, logit_scale=s, **options)
    with backward_inside or contextlib.nullcontext():
        return [value, *torch.autograd.grad(value, (h, c, b, w, s))]


@contextlib.contextmanager
def default(name: str, value: Any, restored: Any) -> Iterator[None]:
    getattr(torch, f"set_default_{name}")(value)
    try:
        yield
    finally:
        getattr(torch, f"set_default_{name}")(restored)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES: dict[str, Callable[[], Any]] = {
    "default float64": lambda: default("dtype", torch.float64, torch.float32),
    "default bfloat16": lambda: default("dtype", torch.bfloat16, torch.float32),
    "default device meta": lambda: default("device", "meta", None),
    "device meta": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "anomaly": torch.autograd.detect_anomaly,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize(
    ("mode", "impl"),
    [
        *((mode, "reference") for mode in MODES),
        *(pytest.param(mode, "triton", marks=pytest.mark.interpreter) for mode in ("default float64", "deterministic")),
    ],
)
def test_what_is_set_globally_changes_nothing(mode: str, impl: str):
    names = LOSSES if impl == "reference" else ("weighted", "scalable")  # what the interpreter runs
    for name in names:
        loss = LOSSES[name]
        want = results(loss, impl=impl)
        got = results(loss, MODES[mode](), MODES[mode](), impl=impl)
        assert [each.dtype for each in got] == [torch.float32] * 6, name
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), name


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_modules_and_frequencies_too(mode: Callable[[], Any]):
    def losses() -> list[Tensor]:
        module = SampledLinearCrossEntropyLoss(weighted(), seed=3)
        if any(buffer.is_meta for buffer in module.buffers()):
            module.to_empty(device="cpu")
        frequencies = update_frequencies(LOG_Q.exp(), TARGET, rate=0.1)
        return [module(HIDDEN, TABLE, TARGET), module(HIDDEN, TABLE, TARGET), frequencies]

    want = losses()
    with mode():
        got = losses()
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_backward_under_autocast_and_calls_without_grad(loss: Callable[..., Tensor]):
    want = results(loss)
    got = results(loss, backward_inside=torch.autocast("cpu", dtype=torch.bfloat16))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    for without in (torch.no_grad(), torch.inference_mode()):
        with without:
            assert torch.equal(loss(HIDDEN, TABLE, TARGET), loss(HIDDEN, TABLE, TARGET).clone())
    assert all(torch.equal(a, b) for a, b in zip(results(loss), want, strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_fake_and_meta_calls_have_the_shapes_and_leave_nothing(name: str):
    sampler = weighted()
    loss = sampled(sampler) if name == "weighted" else LOSSES[name]
    want = loss(HIDDEN, TABLE, TARGET, reduction="none")
    if name not in ("history", "mixed"):  # whose constants here are real
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(each) for each in (HIDDEN, TABLE, TARGET)]
            fakes[1].requires_grad_()
            fake = loss(*fakes, reduction="none")
            assert type(fake).__name__ == "FakeTensor"
            assert (fake.shape, fake.dtype) == (want.shape, want.dtype)
            (table_grad,) = torch.autograd.grad(fake.sum(), fakes[1])
            assert table_grad.shape == TABLE.shape
    meta = [each.to("meta") for each in (HIDDEN, TABLE, TARGET)]
    meta[1].requires_grad_()
    value = loss(*meta, reduction="none")
    assert (value.device.type, value.shape, value.dtype) == ("meta", want.shape, want.dtype)
    assert torch.autograd.grad(value.sum(), meta[1])[0].shape == TABLE.shape
    assert torch.equal(loss(HIDDEN, TABLE, TARGET, reduction="none"), want)


@pytest.mark.parametrize("first", [torch.inference_mode, FakeTensorMode, torch.no_grad, lambda: torch.device("meta")])
def test_a_first_call_in_a_mode_leaves_nothing_in_the_cache(first: Callable[[], Any]):
    sampler, mode = weighted(), first()
    with mode:
        operands = (HIDDEN, TABLE, TARGET)
        if isinstance(mode, FakeTensorMode):
            operands = tuple(mode.from_tensor(each) for each in operands)  # type: ignore[assignment]
        sampled(sampler)(*operands)
    got, want = results(sampled(sampler)), results(sampled(weighted()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_modules_made_or_called_in_inference_mode_train():
    with torch.inference_mode():
        module = SampledLinearCrossEntropyLoss(weighted(), seed=3)
        module(HIDDEN, TABLE, TARGET)
    table = TABLE.clone().requires_grad_()
    module(HIDDEN, table, TARGET).backward()
    with FakeTensorMode():
        SampledLinearCrossEntropyLoss(weighted())  # its start is a real number


def test_a_sampler_that_is_gone_takes_its_tensors_with_it():
    sampler = weighted()
    gone = weakref.ref(sampler)
    before = _tensors_of(V)
    sampled(sampler)(HIDDEN, TABLE, TARGET)
    assert _tensors_of(V) > before
    del sampler
    assert _tensors_of(V) == before
    assert gone() is None


def _tensors_of(items: int) -> int:
    """How many vectors of so many items are alive."""
    gc.collect()
    return sum(type(each) is Tensor and each.shape == (items,) for each in gc.get_objects())


def test_autocast_does_not_mix_half_precisions():
    with pytest.raises(ArgumentTypeError, match=r"^linear_weight: .*bfloat16"), torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(HIDDEN, TABLE.half(), TARGET)
    with pytest.raises(ArgumentTypeError, match=r"^input: "), torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(HIDDEN.double(), TABLE, TARGET)


@pytest.mark.parametrize("name", ["full", "weighted", "binary", "scalable"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_targets_of_every_dtype_with_weights(name: str, dtype: torch.dtype):
    """156 is -100 in uint8: an item there, an ignored row elsewhere."""
    hidden, table = HIDDEN, TABLE
    target, negatives = TARGET.clamp(min=0), PopularityNegatives(np.arange(1, 201), 8, group_size=16)
    loss = sampled(negatives) if name == "weighted" else LOSSES[name]
    if name != "binary":
        table = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
        target = target.clone()
        target[:2] = 156 if dtype == torch.uint8 else 100
    weight = WEIGHT.clone().requires_grad_()
    want = loss(hidden, table, target, sample_weight=WEIGHT, reduction="none")
    got = loss(hidden, table, target.to(dtype), sample_weight=weight, reduction="none")
    assert torch.equal(got, want)
    for half in (torch.bfloat16, torch.float16):
        got = loss(hidden, table, target.to(dtype), sample_weight=WEIGHT.to(half), reduction="sum")
        assert torch.equal(got, loss(hidden, table, target, sample_weight=WEIGHT.to(half).float(), reduction="sum"))


@pytest.mark.parametrize("loss", [LOSSES[name] for name in ("full", "binary", "scalable")])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_an_empty_batch_gives_every_operand_zeros(loss: Callable[..., Tensor], reduction: str):
    h, c, b, w, s = (each.clone().requires_grad_() for each in (HIDDEN[:0], TABLE, BIAS, WEIGHT[:0], SCALE))
    value = loss(h, c, TARGET[:0], linear_bias=b, sample_weight=w, logit_scale=s, reduction=reduction)
    value.sum().backward()
    assert float(value.detach().sum()) == 0
    for each in (h, c, b, w, s):
        assert each.grad is not None
        assert torch.equal(each.grad, torch.zeros_like(each))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_expanded_and_strided_operands(loss: Callable[..., Tensor]):
    hidden, table = HIDDEN[:1].expand(N, D), TABLE.T.contiguous().T
    target, weight = TARGET[:1].expand(N), WEIGHT.repeat_interleave(2)[::2]
    got = loss(hidden, table, target, sample_weight=weight, linear_bias=BIAS[:1].expand(V))
    want = loss(hidden.clone(), TABLE, target.clone(), sample_weight=WEIGHT, linear_bias=BIAS[:1].repeat(V))
    assert torch.equal(got, want)


BAD: dict[str, tuple[Callable[[], Any], type[ArgumentError], str]] = {
    "ignore_index of 71 bits": (
        lambda: linear_cross_entropy(HIDDEN, TABLE, TARGET, ignore_index=2**70), ArgumentValueError, "ignore_index"
    ),
    "the same of frequencies": (
        lambda: update_frequencies(BIAS, TARGET, rate=0.1, ignore_index=2**70), ArgumentValueError, "ignore_index"
    ),
    "ids of rank 0 beside one row": (
        lambda: sampled_linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], torch.tensor(3)),
        ArgumentValueError, "negatives",
    ),
    "targets of frequencies bools": (
        lambda: update_frequencies(BIAS, TARGET > 0, rate=0.1), ArgumentTypeError, "target"
    ),
    "elsewhere": (
        lambda: update_frequencies(BIAS, TARGET.to("meta"), rate=0.1), ArgumentValueError, "target"
    ),
    "no frequencies": (lambda: update_frequencies(BIAS[:0], TARGET, rate=0.1), ArgumentValueError, "frequencies"),
    **{
        f"target of {dtype}": (
            lambda dtype=dtype: linear_cross_entropy(HIDDEN, TABLE, TARGET.clamp(min=0).to(dtype)),
            ArgumentTypeError, "target",
        )
        for dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64)
    },
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "argument"), BAD.values(), ids=BAD.keys())
def test_bad_call(call: Callable[[], Any], kind: type[ArgumentError], argument: str):
    with pytest.raises(kind, match=f"^{argument}: expected "):
        call()
