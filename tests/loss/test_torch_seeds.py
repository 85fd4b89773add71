"""Where a module's draws come from, and that nothing but a step moves them: DDP, checkpoints, recomputation, graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cce_minus.torch_impl import (
    ArgumentTypeError,
    ArgumentValueError,
    SampledLinearBinaryCrossEntropyLoss,
    SampledLinearCrossEntropyLoss,
    ScalableLinearCrossEntropyLoss,
    UniformNegatives,
    fold_seed,
    sampled_linear_cross_entropy,
)
from torch.utils.checkpoint import checkpoint

N, V, D = 6, 20, 8
STRIDE = 0x9E3779B97F4A7C15  # by which a call's seed follows the one before, as in saved checkpoints


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, table = (torch.randn(rows, D, generator=generator).requires_grad_() for rows in (N, V))
    return hidden, table, torch.randint(0, V, (N,), generator=generator)


def softmax(seed: int | None = 3, **options: Any) -> SampledLinearCrossEntropyLoss:
    return SampledLinearCrossEntropyLoss(UniformNegatives(5), seed=seed, **options)


MODULES = {
    "softmax": softmax,
    "binary": lambda seed=3: SampledLinearBinaryCrossEntropyLoss(UniformNegatives(5), seed=seed),
    "scalable": lambda seed=3: ScalableLinearCrossEntropyLoss(n_buckets=2, bucket_size_x=3, bucket_size_y=4, seed=seed),
}


def losses(module: torch.nn.Module, number: int = 2) -> list[float]:
    return [float(module(*inputs()).detach()) for _ in range(number)]


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())
def test_ranks_keep_their_seeds_through_ddp_and_the_checkpoint_of_rank_0(make: Callable[..., torch.nn.Module]):
    want = [losses(make(fold_seed(7, rank)), 4) for rank in range(2)]
    assert want[0] != want[1]
    ranks = [make(fold_seed(7, rank)) for rank in range(2)]
    assert [losses(module, 1) for module in ranks] == [each[:1] for each in want]
    for first, second in zip(*(module.buffers() for module in ranks), strict=True):
        second.copy_(first)  # what DistributedDataParallel does before each forward
    assert [losses(module, 1) for module in ranks] == [each[1:2] for each in want]
    resumed = [make(fold_seed(7, rank)) for rank in range(2)]
    for module in resumed:
        module.load_state_dict(ranks[0].state_dict())
    assert [losses(module) for module in resumed] == [each[2:] for each in want]


def test_state_dicts_of_an_earlier_version_go_on_from_their_seed():
    start = fold_seed(7, 0)
    want = losses(softmax(start), 3)
    after_two = (start + 2 * STRIDE) % 2**64
    state = {"seed": torch.tensor([after_two - 2**64 if after_two >= 2**63 else after_two])}
    for seed in (None, start, 5):
        module = softmax(seed)
        module.load_state_dict(state)
        assert losses(module, 1) == want[2:]
    wrong = {"seed": torch.zeros(3, dtype=torch.long)}
    with pytest.raises(RuntimeError, match="seed: expected int64 of shape"):
        softmax().load_state_dict(wrong)


def test_weights_saved_without_the_loss_load_and_leave_the_draws():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "loss": softmax()})
    weights = {name: tensor for name, tensor in model.state_dict().items() if "loss" not in name}
    model.load_state_dict(weights, strict=True)
    assert losses(model["loss"]) == losses(softmax())
    assert set(model.state_dict()) == {"encoder.weight", "encoder.bias", "loss.seed"}


def test_copies_and_moves_go_on_alike():
    module = softmax()
    losses(module)
    want = losses(copy.deepcopy(module))
    assert losses(module.half()) == want
    with torch.device("meta"):
        deferred = softmax()
    deferred.to_empty(device="cpu")
    assert losses(deferred) == losses(softmax())
    assert softmax().seed == 3
    assert deferred.seed == (3 + 2 * STRIDE + 2**63) % 2**64 - 2**63


def test_a_module_elsewhere_says_so():
    hidden, table, target = inputs()
    for call in (lambda: softmax().to("meta")(hidden, table, target), lambda: softmax()(*map(_meta, inputs()))):
        with pytest.raises(ArgumentValueError, match=r"^input: expected device .*SampledLinearCrossEntropyLoss is"):
            call()


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def _steps(wrap: Callable[..., Any], module: torch.nn.Module) -> tuple[list[torch.Tensor], int]:
    """Losses and gradients of two steps of two calls each, backward after both."""
    results = []
    for _ in range(2):
        hidden, table, target = inputs()
        each = [wrap(lambda h, t: module(h, t, target), hidden * scale, table) for scale in (1.0, 2.0)]  # noqa: B023
        (each[0] + each[1]).backward()
        results += [*each, hidden.grad, table.grad]
    return results, module.seed  # type: ignore[return-value]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(("name", "compiled"), [*((name, False) for name in MODULES), ("softmax", True)])
def test_a_recomputation_draws_the_same_and_moves_nothing(name: str, reentrant: bool, compiled: bool):
    make = MODULES[name]
    want = _steps(lambda call, *operands: call(*operands), make())

    def wrap(call: Any, *operands: Any) -> Any:
        return checkpoint(call, *operands, use_reentrant=reentrant)

    module = make()
    if compiled:
        torch._dynamo.reset()
        module.compile(fullgraph=True, backend="aot_eager")
    got = _steps(wrap, module)
    assert got[1] == want[1]
    for a, b in zip(got[0], want[0], strict=True):
        assert torch.equal(a, b)


def test_a_recomputation_in_another_random_state_raises():
    module = softmax()
    hidden, table, target = inputs()
    loss = checkpoint(lambda h: module(h, table, target), hidden, use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(ArgumentValueError, match=r"^seed: .*preserve_rng_state=True"):
        loss.backward()


def test_plain_training_leaves_torchs_generator_alone():
    module = softmax()
    state = torch.get_rng_state()
    module(*inputs()).backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_int_seed_is_refused_in_a_capture(monkeypatch: pytest.MonkeyPatch):
    from cce_minus.torch_impl.loss.seeds import seed_words

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(ArgumentTypeError, match=r"^seed: .*captured"):
        seed_words(3, torch.device("cuda"))
    seed_words(3, torch.device("cpu"))


def test_seeds_of_any_stride_and_dtype():
    def loss(seed: Any) -> float:
        hidden, table, target = inputs()
        return float(sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(5), seed=seed).detach())

    many = torch.arange(12)
    for seed in (many[::3][1:2], many[3], many[3].to(torch.uint64), many[3:4].expand(1, 1), many[3].to(torch.uint8)):
        assert loss(seed) == loss(3)
    assert loss(torch.tensor([[0, 9], [0, 3]])[:, 1]) == loss(9 * 2**32 + 3)


def graphs(call: Callable[..., Any], values: list[Any]) -> int:
    """How many graphs ``call`` compiles to over the values of its last argument; each result is that of eager code."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for value in values:
        assert torch.equal(compiled(*inputs(), value), call(*inputs(), value))
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("seeds", [range(10), [fold_seed(1, step) for step in range(10)], [-(2**62) - 7, -5, -1]])
def test_int_seeds_share_a_graph(seeds: Any):
    def call(h: Any, t: Any, y: Any, seed: int) -> torch.Tensor:
        return sampled_linear_cross_entropy(h, t, y, UniformNegatives(5), seed=seed)

    assert graphs(call, list(seeds)) <= 2


def test_scales_share_a_graph():
    def call(h: Any, t: Any, y: Any, scale: float) -> torch.Tensor:
        return sampled_linear_cross_entropy(h, t, y, UniformNegatives(5), seed=1, logit_scale=scale)

    assert graphs(call, [1 + step / 7 for step in range(10)]) <= 2
