"""The torch operator as a citizen of torch: opcheck, compile, autocast, seeds, modules, derivatives."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from cce_minus.torch_impl import (
    AllItems,
    LinearCrossEntropyLoss,
    LogUniformNegatives,
    PopularityNegatives,
    SampledLinearCrossEntropyLoss,
    UniformNegatives,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
)
from cce_minus.torch_impl.loss.operands import Operands, Options
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(rows: int = 24, items: int = 90, dim: int = 16, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, dim, generator=generator).to(DEVICE, dtype).requires_grad_()
    table = torch.randn(items, dim, generator=generator).to(DEVICE, dtype).requires_grad_()
    return hidden, table, torch.randint(0, items, (rows,), generator=generator).to(DEVICE)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("mode", ["grouped", "shared_ids", "row_ids"])
def test_opcheck(impl: str, mode: str):
    if impl == "triton" and DEVICE == "cpu" and mode != "grouped":
        pytest.skip("the interpreter runs one mode of this check")
    hidden, table, target = inputs(8, 40)
    ids = {"grouped": None, "shared_ids": target[:6], "row_ids": target[:, None].expand(-1, 3).contiguous()}[mode]
    words = torch.tensor([1, 2], dtype=torch.int32, device=DEVICE)
    scale = torch.ones(1, device=DEVICE, requires_grad=True)
    bias = torch.zeros(40, device=DEVICE, requires_grad=True)
    x = Operands(hidden, table, target, words, scale, bias, ids)
    sampler = "" if ids is not None else UniformNegatives(5, 16).text
    args = (*x, *Options(sampler, 0, 1, impl, None, True, -100, True, None, "uniform", False))
    # the two utilities that run the backward a second time under compile are covered by test_compile
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.cce_minus.forward.default, args, test_utils=checks if impl == "reference" else checks[:3]
    )


WEIGHTED = (LogUniformNegatives(20), PopularityNegatives(range(1, 91), 70, group_size=16))


@pytest.mark.parametrize(
    "negatives",
    [UniformNegatives(20), UniformNegatives(20, 1), AllItems(), *WEIGHTED, "ids"],
    ids=lambda n: n if isinstance(n, str) else type(n).__name__ + str(n.__dict__.get("group_size", "")),
)
def test_compile_fullgraph(negatives):
    hidden, table, target = inputs()
    draws: Any = torch.randint(0, 90, (7,), device=DEVICE) if negatives == "ids" else negatives

    def step(h, c, t):
        return sampled_linear_cross_entropy(h, c, t, draws, seed=3, logit_scale=0.5, softcap=5.0)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for call in (step, compiled):
        loss = call(hidden, table, target)
        results.append((loss, *torch.autograd.grad(loss, (hidden, table))))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compiled_module_draws_anew_without_recompiling():
    hidden, table, target = inputs()
    module = SampledLinearCrossEntropyLoss(UniformNegatives(10), seed=1).to(DEVICE)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    losses = [float(compiled(hidden, table, target).detach()) for _ in range(4)]
    assert len(set(losses)) == 4
    assert counter.frame_count == 1
    eager = SampledLinearCrossEntropyLoss(UniformNegatives(10), seed=1).to(DEVICE)
    assert losses == [float(eager(hidden, table, target).detach()) for _ in range(4)]


def test_module_resumes_its_draws_from_a_state_dict():
    hidden, table, target = inputs()
    module = SampledLinearCrossEntropyLoss(UniformNegatives(10)).to(DEVICE)
    module(hidden, table, target)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    following = module(hidden, table, target)
    resumed = SampledLinearCrossEntropyLoss(UniformNegatives(10)).to(DEVICE)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(hidden, table, target), following)


def test_module_with_weighted_draws_and_without_their_correction():
    hidden, table, target = inputs()
    sampler = PopularityNegatives(range(1, 91), 20)
    for corrected in (True, False):
        module = SampledLinearCrossEntropyLoss(sampler, seed=4, logq_correction=corrected).to(DEVICE)
        want = sampled_linear_cross_entropy(hidden, table, target, sampler, seed=4, logq_correction=corrected)
        assert torch.equal(module(hidden, table, target), want)
        assert f"logq_correction={corrected}" in repr(module)


def test_full_softmax_module():
    hidden, table, target = inputs()
    bias, weight = torch.randn(len(table), device=DEVICE), torch.rand(len(target), device=DEVICE)
    module = LinearCrossEntropyLoss(reduction="sum", softcap=3.0, logit_scale=0.5, return_lse=True)
    got = module(hidden, table, target, bias, weight)
    keywords = {"linear_bias": bias, "sample_weight": weight, "reduction": "sum", "softcap": 3.0, "logit_scale": 0.5}
    want = linear_cross_entropy(hidden, table, target, return_lse=True, **keywords)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert not module.state_dict()
    assert "softcap=3.0" in repr(module)


def test_autocast_casts_the_input_and_keeps_fp32_gradients_of_the_table():
    hidden, table, target = inputs()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss = sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(20), seed=1)
    loss.backward()
    assert table.grad is not None
    assert hidden.grad is not None
    assert loss.dtype == table.grad.dtype == hidden.grad.dtype == torch.float32
    plain = sampled_linear_cross_entropy(hidden.detach().bfloat16(), table, target, UniformNegatives(20), seed=1)
    assert torch.equal(loss, plain)


def test_seed_forms_agree_and_none_draws_from_the_default_generator():
    hidden, table, target = inputs()

    def loss(seed):
        return sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(20), seed=seed).detach()

    one = loss(5)
    assert torch.equal(one, loss(5 + 2**64))
    assert torch.equal(one, loss(torch.tensor([5], device=DEVICE)))
    assert torch.equal(one, loss(torch.tensor(5, dtype=torch.int32, device=DEVICE)))
    assert torch.equal(one, loss(torch.tensor([0, 5], device=DEVICE)))
    assert torch.equal(loss(-1), loss(torch.tensor([2**32 - 1, 2**32 - 1], device=DEVICE)))
    assert not torch.equal(one, loss(6))
    torch.manual_seed(3)
    first, second = loss(None), loss(None)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, loss(None))


def test_leading_dimensions_fold_into_rows():
    hidden, table, target = inputs()
    flat = sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(20), seed=1, reduction="none")
    shaped = sampled_linear_cross_entropy(
        hidden.view(2, 3, 4, 16), table, target.view(2, 3, 4), UniformNegatives(20), seed=1, reduction="none"
    )
    assert shaped.shape == (2, 3, 4)
    assert torch.equal(shaped.flatten(), flat)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_retained_graph_gives_the_same_gradients_again(impl: str, reduction: str):
    """The gradient of input may take the memory of what the forward kept, but not while the graph is of further use."""
    hidden, table, target = inputs()
    loss = sampled_linear_cross_entropy(
        hidden, table, target, UniformNegatives(9, 16), seed=3, reduction=reduction, impl=impl
    ).sum()
    first, second, third = (
        torch.autograd.grad(loss, (hidden, table), retain_graph=again) for again in (True, True, False)
    )
    error = 1e-5 if impl == "reference" and DEVICE == "cuda" else 0.0  # there it adds in any order
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(b, a, rtol=error, atol=error)
        torch.testing.assert_close(c, a, rtol=error, atol=error)


def test_eager_calls_agree_with_the_operator():
    """Plain tensors skip torch's dispatcher; under a dispatch mode, as under tracing, the call is the operator."""
    results = []
    for mode in (contextlib.nullcontext(), _Seen()):
        hidden, table, target = inputs()
        with mode:
            loss = sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(9, 16), seed=3)
            loss.backward()
        results.append((loss, hidden.grad, table.grad))
    assert "cce_minus.forward.default" in mode.names  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class _Seen(TorchDispatchMode):
    """Notes the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_second_derivatives_raise():
    hidden, table, target = inputs()
    loss = sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(20), seed=1)
    (grad,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        grad.sum().backward()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty_batch(reduction: str):
    hidden, table, _ = inputs()
    empty = hidden[:0].detach().requires_grad_()
    target = torch.empty(0, dtype=torch.long, device=DEVICE)
    loss, lse = sampled_linear_cross_entropy(
        empty, table, target, UniformNegatives(5), seed=1, reduction=reduction, return_lse=True
    )
    assert loss.shape == ((0,) if reduction == "none" else ())
    assert lse.shape == (0,)
    loss.sum().backward()
    assert float(loss.detach().sum()) == 0
    assert table.grad is not None
    assert (table.grad == 0).all()


def test_reference_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch):
    """No tensor of the reference holds more than its chunk: never (N, K, D), nor (N, K)."""
    from cce_minus.torch_impl.loss import reference
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 1 << 12)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    rows, negatives = 1024, 64
    for sampler in (UniformNegatives(negatives), UniformNegatives(negatives, 1)):
        hidden, table, target = inputs(rows, 200, 8)
        with Watch():
            sampled_linear_cross_entropy(hidden, table, target, sampler, seed=1, impl="reference").backward()
        assert largest < rows * negatives / 4
