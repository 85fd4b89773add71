"""Two GPUs: calls run where their arrays are, whatever the current device; DDP and shard_map sum gradients rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from cce_minus.torch_impl import HardNegatives, UniformNegatives, sampled_linear_cross_entropy
from cce_minus.torch_impl import scalable_linear_cross_entropy as scalable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
HERE = Path(__file__).parent


def run(*command: str) -> str:
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def test_jax():
    assert run(str(HERE / "two_devices.py"), "auto").split()[-1] == "passed"


def test_torch_processes():
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    assert run(*launcher, str(HERE / "two_gpus_torch.py")).count("passed") == 2


@pytest.mark.parametrize("loss", ["uniform", "hard", "scalable"])
def test_torch_on_the_device_that_is_not_current(loss: str):
    generator = torch.Generator().manual_seed(0)
    hidden, table = (torch.randn(n, 64, generator=generator) for n in (300, 2000))
    target = torch.randint(2000, (300,), generator=generator)

    def call(device: int) -> Sequence[torch.Tensor]:
        h, t = (x.to(device).requires_grad_() for x in (hidden, table))
        y = target.to(device)
        if loss == "scalable":
            value = scalable(h, t, y, n_buckets=8, bucket_size_x=32, bucket_size_y=64, seed=1)
        else:
            negatives = HardNegatives(256, 64) if loss == "hard" else UniformNegatives(128)
            value = sampled_linear_cross_entropy(h, t, y, negatives, seed=1)
        value.backward()
        assert h.grad is not None
        assert t.grad is not None
        return value.detach(), h.grad, t.grad

    torch.cuda.set_device(0)
    first, second = call(0), call(1)
    assert torch.cuda.current_device() == 0
    for a, b in zip(first, second, strict=True):
        assert b.device.index == 1
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=0)
