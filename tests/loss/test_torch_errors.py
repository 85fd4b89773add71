"""The error catalogue of docs/errors.md on the torch side: the typed error, and the argument it names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cce_minus.recsys import ConfigError
from cce_minus.torch_impl import (
    AllItems,
    ArgumentError,
    ArgumentTypeError,
    ArgumentValueError,
    SampledLinearCrossEntropyLoss,
    UniformNegatives,
    linear_cross_entropy,
    sampled_linear_cross_entropy,
)
from cce_minus.torch_impl.devices import device_of
from cce_minus.torch_impl.loss.row_losses import resolve_impl

N, V, D = 6, 20, 8


def call(**changes: Any):
    arguments: dict[str, Any] = {
        "input": torch.randn(N, D),
        "linear_weight": torch.randn(V, D),
        "target": torch.zeros(N, dtype=torch.long),
        "negatives": UniformNegatives(5),
        "seed": 0,
    }
    arguments.update(changes)
    return sampled_linear_cross_entropy(**arguments)


VALUE, TYPE = ArgumentValueError, ArgumentTypeError
BAD = [
    ("input of rank 0", {"input": torch.tensor(1.0)}, "input", VALUE),
    ("input no tensor", {"input": [[1.0]]}, "input", TYPE),
    ("input of integers", {"input": torch.zeros(N, D, dtype=torch.long)}, "input", TYPE),
    ("input float64", {"input": torch.zeros(N, D, dtype=torch.float64)}, "input", TYPE),
    ("weight of rank 3", {"linear_weight": torch.zeros(1, V, D)}, "linear_weight", VALUE),
    ("weight of another width", {"linear_weight": torch.zeros(V, D + 1)}, "linear_weight", VALUE),
    ("no item", {"linear_weight": torch.zeros(0, D)}, "linear_weight", VALUE),
    ("width 0", {"input": torch.zeros(N, 0), "linear_weight": torch.zeros(V, 0)}, "linear_weight", VALUE),
    (
        "bf16 beside fp16",
        {"input": torch.zeros(N, D).half(), "linear_weight": torch.zeros(V, D).bfloat16()},
        "linear_weight",
        TYPE,
    ),
    ("target of another shape", {"target": torch.zeros(N, 2, dtype=torch.long)}, "target", VALUE),
    ("target of floats", {"target": torch.zeros(N)}, "target", TYPE),
    ("target too large", {"target": torch.full((N,), V)}, "target", VALUE),
    ("target negative", {"target": torch.full((N,), -3)}, "target", VALUE),
    ("ids of floats", {"negatives": torch.zeros(5)}, "negatives", TYPE),
    ("ids of rank 0", {"negatives": torch.tensor(3)}, "negatives", VALUE),
    ("ids of other rows", {"negatives": torch.zeros(N + 1, 5, dtype=torch.long)}, "negatives", VALUE),
    ("K = 0", {"negatives": torch.zeros(0, dtype=torch.long)}, "negatives", VALUE),
    ("id too large", {"negatives": torch.full((3,), V)}, "negatives", VALUE),
    ("id below -1", {"negatives": torch.full((3,), -2)}, "negatives", VALUE),
    ("negatives a number", {"negatives": 5}, "negatives", TYPE),
    ("bias of another length", {"linear_bias": torch.zeros(V + 1)}, "linear_bias", VALUE),
    ("bias of integers", {"linear_bias": torch.zeros(V, dtype=torch.long)}, "linear_bias", TYPE),
    ("weights of another shape", {"sample_weight": torch.ones(N + 1)}, "sample_weight", VALUE),
    ("weights of integers", {"sample_weight": torch.ones(N, dtype=torch.long)}, "sample_weight", TYPE),
    ("softcap negative", {"softcap": -1.0}, "softcap", VALUE),
    ("softcap 0", {"softcap": 0.0}, "softcap", VALUE),
    ("softcap infinite", {"softcap": float("inf")}, "softcap", VALUE),
    ("softcap a tensor", {"softcap": torch.tensor(1.0)}, "softcap", TYPE),
    ("unknown reduction", {"reduction": "average"}, "reduction", VALUE),
    ("unknown impl", {"impl": "cuda"}, "impl", VALUE),
    ("ignore_index a float", {"ignore_index": -100.0}, "ignore_index", TYPE),
    ("hits flag a number", {"remove_accidental_hits": 1}, "remove_accidental_hits", TYPE),
    ("return_lse a number", {"return_lse": 1}, "return_lse", TYPE),
    ("scale of two elements", {"logit_scale": torch.ones(2)}, "logit_scale", VALUE),
    ("scale of integers", {"logit_scale": torch.ones(1, dtype=torch.long)}, "logit_scale", TYPE),
    ("scale a string", {"logit_scale": "1"}, "logit_scale", TYPE),
    ("seed a float", {"seed": 1.5}, "seed", TYPE),
    ("seed a float tensor", {"seed": torch.ones(1)}, "seed", TYPE),
    ("seed of three words", {"seed": torch.zeros(3, dtype=torch.long)}, "seed", VALUE),
    ("another device", {"target": torch.zeros(N, dtype=torch.long, device="meta")}, "target", VALUE),
]


@pytest.mark.parametrize(("changes", "argument", "kind"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_call(changes: dict[str, Any], argument: str, kind: type[ArgumentError]):
    with pytest.raises(kind) as caught:
        call(**changes)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: expected ")
    assert isinstance(caught.value, TypeError if kind is TYPE else ValueError)


def test_triton_on_the_cpu_outside_the_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ArgumentValueError, match=r"^impl: .*CUDA"):
        call(impl="triton")


def test_an_ignored_row_may_hold_any_ignore_index():
    target = torch.full((N,), 10**9)
    assert call(target=target, ignore_index=10**9) == 0


def test_good_neighbours_of_the_bad_calls():
    call()
    call(negatives=AllItems(), seed=None)
    call(negatives=torch.tensor([-1, 0, V - 1]), seed=None)
    call(target=torch.zeros(N, dtype=torch.int32), ignore_index=0)


def test_module_takes_a_sampler_only():
    with pytest.raises(ArgumentTypeError, match="negatives"):
        SampledLinearCrossEntropyLoss(torch.zeros(3, dtype=torch.long))  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="reduction"):
        SampledLinearCrossEntropyLoss(AllItems(), reduction="max")


def test_linear_cross_entropy_checks_alike():
    with pytest.raises(ArgumentValueError, match="softcap"):
        linear_cross_entropy(torch.zeros(N, D), torch.zeros(V, D), torch.zeros(N, dtype=torch.long), softcap=-2.0)


def test_a_gpu_of_amd_has_plain_pytorch(monkeypatch: pytest.MonkeyPatch):
    """PyTorch calls it cuda."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = torch.device("cuda")
    assert resolve_impl("auto", gpu) == resolve_impl("reference", gpu) == "reference"
    with pytest.raises(ArgumentValueError, match=r"^impl: .* on cuda \(Triton needs an NVIDIA GPU\), got 'triton'"):
        resolve_impl("triton", gpu)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"^device: .* without a usable NVIDIA GPU \(a build for ROCm 7\.0\)"):
        device_of("cuda")
