"""The scripts and code blocks of the documentation run, and do what is written beside them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cce_minus.torch_impl import linear_cross_entropy
from torch.nn.functional import cross_entropy

DOCS = Path(__file__).parent.parent.parent / "docs"
GUIDE = (DOCS / "migrating.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in GUIDE.split("\n## ")[1:]}
OURS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)  # others' calls are marked py
PREAMBLE = OURS.findall(GUIDE)[0]
BLOCKS = [(title, i, code) for title, part in SECTIONS.items() for i, code in enumerate(OURS.findall(part))]


@pytest.mark.parametrize("name", ["torch", "flax"])
def test_example_learns_with_either_loss(name: str):
    run = subprocess.run(
        [sys.executable, str(DOCS / f"examples/loss_in_{name}.py")],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for loss in ("full", "sampled"):
        losses = [float(value) for value in re.findall(rf"^{loss} step \d+ loss (\S+)$", run.stdout, re.MULTILINE)]
        assert len(losses) >= 4
        assert losses[-1] < 0.7 * losses[0]
        (rate,) = re.findall(rf"^{loss} hit rate at 10: (\S+) ", run.stdout, re.MULTILINE)
        assert float(rate) > 0.5  # 0.01 by chance, about 0.8 at best


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_search_ends_bad_trials_early_and_finds_good_options(framework: str):
    pytest.importorskip("optuna")
    run = subprocess.run(
        [sys.executable, str(DOCS / "examples/search_with_optuna.py"), framework],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (pruned,) = re.findall(r"^8 trials, of which (\d) ended early", run.stdout, re.MULTILINE)
    assert int(pruned) >= 1
    (valid, test) = re.findall(r"^NDCG@10 on validation: (\S+), on the test: (\S+)$", run.stdout, re.MULTILINE)[0]
    assert min(float(valid), float(test)) > 0.8


def test_quick_starts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml-1m").mkdir()
    rows = [f"{user}::{(user + place) % 30}::5::{place}" for user in range(40) for place in range(20)]
    (tmp_path / "ml-1m" / "ratings.dat").write_text("\n".join(rows))
    blocks = OURS.findall((DOCS / "quick_starts.md").read_text())
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for code in blocks:
        assert len([line for line in code.splitlines() if line]) <= 6
        exec(re.sub(r"epochs=\d+", "epochs=1, device='cpu'", code), names)
    assert len(names["recos"]) == 40 * 10
    assert 0 <= names["metrics"]["ndcg@10"] <= 1


def executed(code: str) -> dict[str, Any]:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(PREAMBLE + code, "docs/migrating.md", "exec"), names)
    return names


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{title} {i}") for title, i, code in BLOCKS])
def test_block_of_the_guide_runs(code: str):
    loss = executed(code)["loss"]
    assert loss.shape == ()
    assert 0 < loss.item() < float("inf")


def test_every_section_has_both_calls():
    assert len(SECTIONS) == 10
    for title, part in SECTIONS.items():
        assert "\n```py\n" in part, title
        assert OURS.search(part), title
        assert re.search(r"\[[\w ]+\]\(https://", part), title


def block(title: str, i: int) -> dict[str, Any]:
    (code,) = [code for name, j, code in BLOCKS if name.startswith(title) and j == i]
    return executed(code)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_weights_of_classes_are_those_of_cross_entropy():
    x = block("torch.nn.functional.cross_entropy", 0)
    close(x["loss"], cross_entropy(x["hidden"] @ x["table"].T, x["target"], weight=x["class_weight"]))


def test_full_cross_entropy_is_optax_s():
    import optax

    x = block("optax", 0)
    theirs = optax.softmax_cross_entropy_with_integer_labels(x["hidden"] @ x["table"].T, x["target"]).mean()
    assert float(x["full"]) == pytest.approx(float(theirs), rel=1e-5)


def test_expected_counts_of_a_uniform_sampler_cancel_out():
    x = block("tf.nn", 1)
    expected = torch.tensor(x["K"] / x["V"])
    true = (x["hidden"] * x["table"][x["target"]]).sum(1, keepdim=True)
    hits = x["target"][:, None] == x["ids"]
    drawn = (x["hidden"] @ x["table"][x["ids"]].T).masked_fill(hits, float("-inf"))
    logits = torch.cat([true, drawn], 1) - expected.log()
    close(x["loss"], cross_entropy(logits, torch.zeros_like(x["target"])))


def test_a_bias_is_the_logq_correction_of_retrieval():
    x = block("Two-tower", 0)
    scores = x["queries"] @ x["candidates"].T / 0.05 - x["p"].log()
    close(x["loss"], cross_entropy(scores, torch.arange(x["N"]), reduction="sum"))


def test_a_padding_row_cut_off_gets_no_gradient():
    x = block("RecTools", 0)
    y = x["y"].where(torch.arange(x["N"]) % 4 > 0, -100)
    loss = linear_cross_entropy(x["hidden"], x["items"], y)
    close(loss, cross_entropy(x["hidden"] @ x["table"][1:].T, y))
    loss.backward()
    assert not x["table"].grad[0].any()
    assert x["table"].grad[1].any()
    assert not x["table"].grad.is_sparse
