"""Plain calls agree with the operators bit for bit, in losses, gradients and errors, whatever they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cce_minus.torch_impl import (
    AllItems,
    ArgumentError,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
)
from cce_minus.torch_impl.loss import binary, constants, cross_entropy, plain
from torch import Tensor
from torch.utils.checkpoint import checkpoint

pytestmark = [] if torch.cuda.is_available() else [pytest.mark.interpreter]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N, V, D = 36, 90, 16
GENERATOR = torch.Generator().manual_seed(0)
HIDDEN, TABLE, BIAS = (torch.randn(*shape, generator=GENERATOR).to(DEVICE) for shape in ((N, D), (V, D), (V,)))
TARGET = torch.randint(0, V, (N,), generator=GENERATOR).to(DEVICE)
TARGET[3:6] = -100
WEIGHT = torch.rand(N, generator=GENERATOR).to(DEVICE)
POPULAR = PopularityNegatives(range(1, V + 1), 20, group_size=16)

CALLS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "rows": {"reduction": "none"},
    "weights": {"sample_weight": WEIGHT},
    "lse": {"return_lse": True},
    "lse alone": {"return_lse": True, "only": 1},
    "bias": {"linear_bias": BIAS, "softcap": 3.0},
    "scale": {"logit_scale": torch.tensor(0.7, device=DEVICE)},
    "scale and lse": {"logit_scale": torch.tensor([0.7], device=DEVICE), "return_lse": True, "linear_bias": BIAS},
    "a number as scale": {"logit_scale": 0.5, "remove_accidental_hits": False},
    "no seed": {"seed": None},
    "seed of two words": {"seed": torch.tensor([3, 5], device=DEVICE)},
    "all items": {"negatives": AllItems()},
    "independent": {"negatives": UniformNegatives(9, 1)},
    "member": {"negatives": UniformNegatives(60, 1)},
    "log-uniform": {"negatives": LogUniformNegatives(20, 16)},
    "popularity": {"negatives": POPULAR},
    "mixed": {"negatives": MixedNegatives(UniformNegatives(9, 16), LogUniformNegatives(8, 16))},
    "uncorrected": {"negatives": LogUniformNegatives(20, 16), "logq_correction": False, "reduction": "none"},
    "leading dimensions": {"shape": (3, 12)},
    "leading dimensions of rows": {"shape": (3, 12), "reduction": "none"},
    "one row": {"shape": (), "rows": 1},
    "int32 targets": {"target": TARGET.int()},
    "half": {"dtype": torch.bfloat16},
    "unaligned": {"shift": 1},
    "table alone": {"asks": "table"},
    "input alone": {"asks": "input"},
    "bias alone": {"asks": "bias", "linear_bias": BIAS},
    "every item ignored": {"target": torch.full_like(TARGET, -100)},
}


def moved(tensor: Tensor, shift: int) -> Tensor:
    """The same at an address that is ``shift`` elements further."""
    room = tensor.new_empty(tensor.numel() + shift)
    return room[shift:].view(tensor.shape).copy_(tensor)


def run(loss: Callable[..., Any], case: dict[str, Any]) -> list[Tensor | None]:
    """Losses and gradients; what a call gives back is made from its own copies."""
    case = {"negatives": UniformNegatives(9, 16), "seed": 3, "impl": "triton", "target": TARGET} | case
    shape, rows, shift = case.pop("shape", (N,)), case.pop("rows", N), case.pop("shift", 0)
    dtype, asks, only = case.pop("dtype", torch.float32), case.pop("asks", ""), case.pop("only", 0)
    hidden = moved(HIDDEN[:rows].to(dtype), shift).view(*shape, D)
    table, target = moved(TABLE.to(dtype), shift), case.pop("target")[:rows].clone().view(shape)
    leaves = {"input": hidden, "table": table}
    for name, leaf in (("linear_bias", "bias"), ("logit_scale", "scale"), ("sample_weight", "weight")):
        if isinstance(case.get(name), Tensor):
            leaves[leaf] = case[name] = case[name].clone()
    for name, leaf in leaves.items():
        leaf.requires_grad_(not asks or name == asks)
    torch.manual_seed(1)
    results = loss(hidden, table, target, case.pop("negatives"), **case)
    results = results if isinstance(results, tuple) else (results,)
    upstream = torch.linspace(-1, 2, results[0].numel(), device=DEVICE).view(results[0].shape)
    torch.stack([(each * upstream).sum() for each in results[only:]]).sum().backward()
    return [*(each.detach().clone() for each in results), *(leaf.grad for leaf in leaves.values())]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[plain.Plan]:
    """Those that are called."""
    called: list[plain.Plan] = []
    call = plain.Plan.call

    def noted(self: plain.Plan, *args: Any) -> Any:
        called.append(self)
        return call(self, *args)

    monkeypatch.setattr(plain.Plan, "call", noted)
    return called


def by_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cross_entropy, binary):
        monkeypatch.setattr(module, "plain_loss", lambda *_: None)


@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS.keys())
def test_bits(case: dict[str, Any], plans: list[plain.Plan], monkeypatch: pytest.MonkeyPatch):
    got = run(sampled_linear_cross_entropy, case)
    again = run(sampled_linear_cross_entropy, case)
    assert len(plans) == 2
    assert plans[0] is plans[1]
    by_operators(monkeypatch)
    want = run(sampled_linear_cross_entropy, case)
    assert len(plans) == 2
    for a, b, c in zip(got, again, want, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if a is not None:
            assert b is not None
            assert c is not None
            assert a.dtype == c.dtype
            assert a.shape == c.shape
            assert torch.equal(a.nan_to_num(7.0), c.nan_to_num(7.0))
            assert torch.equal(b.nan_to_num(7.0), c.nan_to_num(7.0))


@pytest.mark.parametrize("gbce_t", [None, 0.75])
def test_bits_of_the_binary_loss(gbce_t: float | None, plans: list[plain.Plan], monkeypatch: pytest.MonkeyPatch):
    got = run(sampled_linear_binary_cross_entropy, {"gbce_t": gbce_t, "linear_bias": BIAS})
    assert len(plans) == 1
    by_operators(monkeypatch)
    want = run(sampled_linear_binary_cross_entropy, {"gbce_t": gbce_t, "linear_bias": BIAS})
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))  # type: ignore[arg-type]


def call(**case: Any) -> Any:
    case = {"input": HIDDEN, "linear_weight": TABLE, "target": TARGET, "negatives": UniformNegatives(9, 16)} | case
    return sampled_linear_cross_entropy(**({"seed": 3, "impl": "triton"} | case))


WRONG: dict[str, dict[str, Any]] = {
    "a bool for a number": {"remove_accidental_hits": 1},
    "a bool as ignore_index": {"ignore_index": True},
    "a float as ignore_index": {"ignore_index": -100.0},
    "a bool as scale": {"logit_scale": True},
    "a bool as softcap": {"softcap": True},
    "a list": {"reduction": ["mean"]},
    "a name": {"reduction": "average"},
    "a seed": {"seed": 1.5},
    "a scale of two": {"logit_scale": torch.ones(2)},
    "another width": {"linear_weight": torch.ones(V, D + 1)},
    "no target": {"target": torch.full((N,), V)},
    "a nested tensor": {"input": lambda: torch.nested.nested_tensor([torch.ones(2, D)])},
    "a sparse tensor": {"linear_weight": torch.eye(D).to_sparse()},
}


@pytest.mark.skipif(DEVICE == "cuda", reason="values are not looked at there")
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_was_right_once_excuses_nothing(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    call()
    call(ignore_index=1, softcap=1.0, target=TARGET.clamp(min=0))
    wrong = {name: value() if callable(value) else value for name, value in wrong.items()}
    with pytest.raises((ArgumentError, TypeError)) as got:
        call(**wrong)
    by_operators(monkeypatch)
    with pytest.raises(type(got.value)) as want:
        call(**wrong)
    assert str(got.value) == str(want.value)


def test_an_operand_that_changes_before_the_backward_raises():
    table = TABLE.clone().requires_grad_()
    loss = call(input=HIDDEN.clone().requires_grad_(), linear_weight=table)
    with torch.no_grad():
        table.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_graph_runs_twice_if_it_is_kept_and_once_if_not():
    hidden = HIDDEN.clone().requires_grad_()
    loss = call(input=hidden)
    first = torch.autograd.grad(loss, hidden, retain_graph=True)[0].clone()
    assert torch.equal(first, torch.autograd.grad(loss, hidden)[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, hidden)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_to_be_differentiated_are_the_same(reduction: str):
    hidden, table, bias = (x.clone().requires_grad_() for x in (HIDDEN.view(3, 12, D), TABLE, BIAS))
    scale = torch.tensor(0.7, device=DEVICE, requires_grad=True)
    inputs = hidden, table, bias, scale

    def grads(**options: Any) -> tuple[Tensor, ...]:
        operands = {"input": hidden, "linear_weight": table, "linear_bias": bias, "logit_scale": scale}
        loss = call(target=TARGET.view(3, 12), reduction=reduction, **operands)
        return torch.autograd.grad(loss.sum(), inputs, **options)

    made = grads(create_graph=True)
    assert all(torch.equal(a.detach(), b) for a, b in zip(made, grads(), strict=True))
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(made[1].sum(), table)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputation_has_the_same_bits(reentrant: bool):
    results = []
    for recomputes in (False, True):
        hidden = HIDDEN.clone().requires_grad_()
        once = call(input=hidden)
        loss = checkpoint(lambda x: call(input=x), hidden, use_reentrant=reentrant) if recomputes else once
        loss.backward()
        results.append((loss.detach(), hidden.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_saved_tensors_may_be_packed():
    hidden = HIDDEN.clone().requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        loss = call(input=hidden)
    loss.backward()
    want = HIDDEN.clone().requires_grad_()
    call(input=want).backward()
    assert torch.equal(hidden.grad, want.grad)  # type: ignore[arg-type]


def test_constants_are_kept_by_value():
    constants._kept.clear()
    device = HIDDEN.device
    with torch.inference_mode():
        one = constants.constant(1.0, torch.float32, device)
    assert not one.is_inference()
    assert constants.constant(1.0, torch.float32, device) is one
    zeros = [constants.constant(zero, torch.float32, device) for zero in (0.0, -0.0)]
    assert [float(torch.copysign(torch.ones(1, device=device), zero)) for zero in zeros] == [1.0, -1.0]
    for number in range(2 * constants.MOST_KEPT):
        constants.constant(float(number), torch.float32, device)
    assert len(constants._kept) <= constants.MOST_KEPT
