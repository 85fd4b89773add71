"""torch.func and forward mode: what works is torch's own cross-entropy of the same logits, what does not raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cce_minus.kernels.negatives.history import History
from cce_minus.torch_impl import (
    ArgumentTypeError,
    ArgumentValueError,
    LogUniformNegatives,
    SampledLinearCrossEntropyLoss,
    UniformNegatives,
    linear_cross_entropy,
    sampled_linear_binary_cross_entropy,
    sampled_linear_cross_entropy,
    scalable_linear_cross_entropy,
)
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_leaves

B, N, V, D = 4, 6, 20, 8
GENERATOR = torch.Generator().manual_seed(0)
HIDDEN = torch.randn(B, N, D, generator=GENERATOR)
TABLE = torch.randn(V, D, generator=GENERATOR)
BIAS = torch.randn(V, generator=GENERATOR)
SCALE = torch.tensor(0.7)
TARGET = torch.randint(0, V, (B, N), generator=GENERATOR)
TARGET[0, 0] = TARGET[1, :3] = -100
OPERANDS = HIDDEN, TARGET, TABLE, BIAS, SCALE
MAPPED = (0, 0, None, None, None)


def ours(h: Tensor, y: Tensor, c: Tensor, b: Tensor, s: Tensor, **options: Any) -> Tensor:
    return linear_cross_entropy(h, c, y, linear_bias=b, logit_scale=s, **options)


def theirs(h: Tensor, y: Tensor, c: Tensor, b: Tensor, s: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(s * (h @ c.T) + b, y, **options)


def rows_of(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *operands: f(*operands, reduction="none")


def total(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *operands: vmap(f, MAPPED)(*operands).sum()


ONE = HIDDEN[0], TARGET[0], TABLE, BIAS, SCALE
WORKS: dict[str, Callable[[Callable[..., Tensor]], Any]] = {
    "grad": lambda f: grad(f, (0, 2, 3, 4))(*ONE),
    "vjp": lambda f: vjp(lambda h, c: f(h, TARGET[0], c, BIAS, SCALE), HIDDEN[0], TABLE)[1](torch.tensor(2.0)),
    "jacrev of rows": lambda f: jacrev(rows_of(f), (0, 2, 3, 4))(*ONE),
    "vmap": lambda f: vmap(f, MAPPED)(*OPERANDS),
    "vmap of rows, another axis": lambda f: vmap(rows_of(f), (1, 1, None, None, None))(
        HIDDEN.movedim(0, 1), TARGET.movedim(0, 1), *OPERANDS[2:]
    ),
    "vmap of input": lambda f: vmap(f, (0, None, None, None, None))(HIDDEN, TARGET[2], *OPERANDS[2:]),
    "vmap of target": lambda f: vmap(f, (None, 0, None, None, None))(HIDDEN[0], *OPERANDS[1:]),
    "vmap of vmap": lambda f: vmap(vmap(f, MAPPED), MAPPED)(
        HIDDEN.view(2, 2, N, D), TARGET.view(2, 2, N), *OPERANDS[2:]
    ),
    "grad of vmap": lambda f: grad(total(f), (0, 2, 3, 4))(*OPERANDS),
    "vmap of grad": lambda f: vmap(grad(f, (0, 2, 3, 4)), MAPPED)(*OPERANDS),
    "vmap of jacrev": lambda f: vmap(jacrev(rows_of(f), (0, 2)), MAPPED)(*OPERANDS),
}


@pytest.mark.parametrize("transform", WORKS.values(), ids=WORKS.keys())
def test_works(transform: Callable[..., Any]):
    for got, want in zip(tree_leaves(transform(ours)), tree_leaves(transform(theirs)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


FORWARD: dict[str, Callable[..., Any]] = {
    "jvp": lambda f: jvp(lambda c: f(HIDDEN[0], TARGET[0], c, BIAS, SCALE), (TABLE,), (TABLE,)),
    "jacfwd": lambda f: jacfwd(f, 3)(*ONE),
    "hessian": lambda f: hessian(f, 2)(*ONE),
    "jvp of vmap": lambda f: jvp(lambda c: total(f)(HIDDEN, TARGET, c, BIAS, SCALE), (TABLE,), (TABLE,)),
}


@pytest.mark.parametrize("transform", FORWARD.values(), ids=FORWARD.keys())
def test_forward_mode_raises(transform: Callable[..., Any]):
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        transform(ours)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "full": lambda h, c: linear_cross_entropy(h, c, TARGET[0]),
    "weighted": lambda h, c: sampled_linear_cross_entropy(h, c, TARGET[0], LogUniformNegatives(9), seed=1),
    "binary": lambda h, c: sampled_linear_binary_cross_entropy(h, c, TARGET[0], UniformNegatives(9), seed=1),
    "scalable": lambda h, c: scalable_linear_cross_entropy(
        h, c, TARGET[0], n_buckets=2, bucket_size_x=4, bucket_size_y=5, seed=1
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("trained", [False, True])
def test_dual_tensors_raise_instead_of_losing_their_tangent(loss: Callable[..., Tensor], trained: bool):
    with forward_ad.dual_level():
        for moving in range(2):
            operands = [each.clone().requires_grad_(trained) for each in (HIDDEN[0], TABLE)]
            operands[moving] = forward_ad.make_dual(operands[moving], torch.ones_like(operands[moving]))
            with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
                loss(*operands)
        weight = forward_ad.make_dual(torch.ones(N), torch.arange(float(N)))  # no part of the rows
        got = linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], sample_weight=weight, reduction="sum")
        rows = linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], reduction="none")
        torch.testing.assert_close(forward_ad.unpack_dual(got).tangent, (rows * torch.arange(float(N))).sum())


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_grad_of_every_loss_is_that_of_backward(loss: Callable[..., Tensor]):
    operands = [each.clone().requires_grad_() for each in (HIDDEN[0], TABLE)]
    want = torch.autograd.grad(loss(*operands), operands)
    for a, b in zip(grad(loss, (0, 1))(HIDDEN[0], TABLE), want, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_raise():
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        jacrev(jacrev(ours, 2), 2)(*ONE)


def test_mapped_rows_are_one_call_with_one_draw():
    def call(h: Tensor, y: Tensor) -> Tensor:
        return sampled_linear_cross_entropy(h, TABLE, y, UniformNegatives(5, 16), seed=3, reduction="none")

    assert torch.equal(vmap(call)(HIDDEN, TARGET), call(HIDDEN, TARGET))


def test_mapped_ids_and_histories():
    ids = torch.randint(0, V, (B, N, 3), generator=GENERATOR)
    users = torch.randint(0, 2, (B, N), generator=GENERATOR)
    offsets, items = torch.tensor([0, 2, 3]), torch.tensor([1, 4, 7])

    def call(h: Tensor, y: Tensor, u: Tensor, k: Tensor) -> Tensor:
        return sampled_linear_cross_entropy(h, TABLE, y, k, history=History(u, offsets, items))

    for each in (ids, ids[:, 0], ids[0, 0]):
        dim = None if each.ndim == 1 else 0
        got = vmap(call, (0, 0, 0, dim))(HIDDEN, TARGET, users, each)
        want = [call(HIDDEN[i], TARGET[i], users[i], each if dim is None else each[i]) for i in range(B)]
        torch.testing.assert_close(got, torch.stack(want))


SEEDS = torch.arange(B)
UNMAPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "linear_weight": lambda x: linear_cross_entropy(HIDDEN[0], TABLE + x, TARGET[0]),
    "linear_bias": lambda x: linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], linear_bias=BIAS + x),
    "logit_scale": lambda x: linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], logit_scale=SCALE + x),
    "seed": lambda x: sampled_linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], UniformNegatives(5), seed=x),
    "log_q": lambda x: sampled_linear_cross_entropy(HIDDEN[0], TABLE, TARGET[0], TARGET[2], log_q=BIAS + x),
}


@pytest.mark.parametrize("argument", UNMAPPED)
def test_what_mapped_calls_must_share_is_named(argument: str):
    with pytest.raises(ArgumentValueError, match=f"^{argument}: expected a tensor shared by the mapped rows"):
        vmap(UNMAPPED[argument])(SEEDS)


def test_functional_call_takes_the_draws_from_the_given_state():
    module = SampledLinearCrossEntropyLoss(UniformNegatives(5), seed=3)
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    first = functional_call(module, dict(state), (HIDDEN[0], TABLE, TARGET[0]))
    second = functional_call(module, state, (HIDDEN[0], TABLE, TARGET[0]))
    assert [float(module(HIDDEN[0], TABLE, TARGET[0])) for _ in range(2)] == [float(first), float(second)]


@pytest.mark.parametrize("transform", [WORKS["grad"], WORKS["vmap"], FORWARD["jvp"]], ids=["grad", "vmap", "jvp"])
def test_compiled_transforms_raise(transform: Callable[..., Any]):
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"cannot trace torch\.func's transforms of the loss"):
        torch.compile(lambda: transform(ours), backend="eager", fullgraph=True)()


@pytest.mark.parametrize("argument", ["input", "linear_weight", "logit_scale"])
def test_distributed_and_sparse_tensors_are_named(argument: str):
    from torch.distributed.tensor import DTensor, Replicate, device_mesh

    operands: dict[str, Any] = {"input": HIDDEN[0], "linear_weight": TABLE, "logit_scale": SCALE}
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.HashStore(),  # type: ignore[attr-defined]
        rank=0,
        world_size=1,
    )
    try:
        mesh = device_mesh.init_device_mesh("cpu", (1,))
        distributed = DTensor.from_local(operands[argument], mesh, [Replicate()])
        with pytest.raises(ArgumentTypeError, match=rf"^{argument}: expected a local tensor .*DTensor"):
            linear_cross_entropy(target=TARGET[0], **operands | {argument: distributed})  # type: ignore[call-overload]
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(ArgumentTypeError, match=rf"^{argument}: expected a dense tensor"):
        linear_cross_entropy(target=TARGET[0], **operands | {argument: operands[argument].to_sparse()})
