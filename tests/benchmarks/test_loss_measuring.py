"""How the loss benchmark measures: its gate, its turns, and its isolation of peers. No GPU is needed."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.loss import timing
from benchmarks.loss.gate import GateError, check
from benchmarks.loss.inputs import make_inputs
from benchmarks.loss.peers import peer_providers
from benchmarks.loss.provider import PAPER, Provider
from benchmarks.loss.providers_torch import eager_loss, every_item, torch_providers, uniform_ids
from benchmarks.loss.shapes import Shape
from benchmarks.loss.timing import Timed, interleave


def full_loss(hidden, table, target, negatives, seed):
    return torch.nn.functional.cross_entropy((hidden @ table.T).float(), target)


def test_the_gate_passes_a_plain_loss_and_stops_a_wrong_one_of_ours():
    error, line = check(Provider("full", "torch", True, full_loss, every_item), 16, "cpu")
    assert error < 1e-2
    assert "beyond" not in line
    wrong = Provider("wrong", "torch", True, lambda *a: full_loss(*a) * 1.02, every_item)
    assert "beyond loss" in check(wrong, 16, "cpu")[1], "a peer is only noted"
    with pytest.raises(GateError, match="wrong, D=16"):
        check(replace(wrong, ours=True), 16, "cpu")


@pytest.mark.parametrize("name", ["cce-minus grouped", "cce-minus independent"])
def test_the_gate_knows_what_ours_draw(name: str):
    provider = next(p for p in torch_providers() if p.name == name)
    check(provider, 16, "cpu")
    with pytest.raises(GateError):
        check(replace(provider, ids=uniform_ids), 16, "cpu")


def test_the_gate_knows_what_the_eager_loss_draws():
    assert "beyond" not in check(Provider("eager", "torch", False, eager_loss, uniform_ids), 16, "cpu")[1]


def test_zipf_targets_repeat_and_uniform_ones_hardly_do():
    shape = Shape("", 2000, 1, 100_000, 4)
    popular = {}
    for targets in ("uniform", "zipf"):
        drawn = make_inputs(shape, targets, "cpu").target
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) < shape.items
        popular[targets] = int(drawn.unique(return_counts=True)[1].max())
    assert popular["uniform"] < 5
    assert popular["zipf"] > 100  # 2000 / ln(100000), about 165, go to the most popular item


def test_turns_give_fast_ones_full_bursts_and_slow_ones_two(monkeypatch: pytest.MonkeyPatch):
    now = 0.0  # seconds, of a clock that only what is measured moves

    def sleeper(name: str, seconds: float, chained: bool = False) -> Timed:
        def sleep() -> None:
            nonlocal now
            now += seconds

        return Timed(name, "eager", sleep, lambda _: None, chained)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))
    fast, slow, chained = sleeper("fast", 0.0005), sleeper("slow", 0.06), sleeper("chained", 0.0005, True)
    failures = []

    def broken() -> None:
        raise ValueError("no")

    items = [fast, slow, chained, Timed("broken", "eager", broken, lambda _: None)]
    interleave(items, 4, 1.0, lambda: None, lambda item, error: failures.append((item.provider, str(error))))
    assert failures == [("broken", "no")]
    assert (len(fast.ms), len(slow.ms)) == (4, 4)
    assert fast.steps >= 10
    assert (slow.steps, slow.lead) == (1, 0)
    assert chained.steps > fast.steps
    assert fast.ms[0] == pytest.approx(0.5)
    very_slow = sleeper("very slow", 0.1)
    interleave([very_slow], 5, 0.05, lambda: None, lambda item, error: None)
    assert len(very_slow.ms) == 2


def write_package(root: Path, text: str = "") -> None:
    package = root / "cut_cross_entropy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    (package / "constants.py").write_text("NAME = 1")
    (package / "cce.py").write_text(
        "from cut_cross_entropy.constants import NAME\nclass CCEParams: ...\nclass LinearCrossEntropyFunction: ...\n"
    )


def test_peers_of_one_name_do_not_meet_and_absent_ones_are_named(tmp_path: Path):
    write_package(tmp_path / "MemoryEfficientSRS" / "kernels")
    write_package(tmp_path / "ml-cross-entropy", "raise ImportError('made for another Triton')")
    path = list(sys.path)
    found, missing = peer_providers(tmp_path)
    names = {provider.name for provider in found}
    assert PAPER in names
    assert missing["Apple CCE"] == "does not import: ImportError: made for another Triton"
    assert "Liger-Kernel" in missing["Liger"]
    assert sys.path == path
    assert not any(name.startswith(("cut_cross_entropy", "liger_kernel")) for name in sys.modules)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("cut_cross_entropy")
    assert all("--peers" in reason for name, reason in peer_providers(None)[1].items() if not name.startswith("torch"))


def test_the_papers_kernel_refuses_what_its_launch_cannot_hold(tmp_path: Path):
    write_package(tmp_path / "MemoryEfficientSRS" / "kernels")
    paper = peer_providers(tmp_path)[0][0]
    assert paper.refuses(Shape("", 100, 65534, 10**6, 64)) is None
    assert "grid" in (paper.refuses(Shape("", 100, 65535, 10**6, 64)) or "")
    assert "int32" in (paper.refuses(Shape("", 10**6, 4096, 10**6, 64)) or "")
