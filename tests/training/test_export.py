"""What a server without this package gets of a run: item vectors, an index, and the encoder as a program."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, Ragged, load_dataset
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.serving import encoder_program, export
from safetensors.numpy import load_file

from tests.training.commands import call, error_of, recommend

GUIDE = (Path(__file__).parents[2] / "docs/recommender.md").read_text().split("**The encoder as a program**")[1]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
"""What the guide tells a server of PyTorch to do, and the lines that differ in JAX."""

BATCHES = """
import sys
inputs = np.full((4, told["max_length"]), told["padding_id"], told["input"]["dtype"])
for row, history in zip(inputs, json.loads(sys.argv[1])):
    last = history[-len(row):]
    row[len(row) - len(last):] = last
hidden = np.concatenate([np.asarray(program({rows}(rows))) for rows in (inputs[:1], inputs[1:])])
top = np.argsort(-hidden @ vectors.T)[:, :10]
roots = {{name.partition(".")[0] for name in sys.modules}}
unwanted = sorted(roots & {{"cce_minus", "flax", "lightning_fabric", {other!r}}})
print(json.dumps([told, best.tolist(), hidden.tolist(), top.tolist(), unwanted]))
"""


def served(framework: str, served: Path, histories: list[list[int]]) -> list[Any]:
    """What a process that has never heard of this package makes of a folder: the guide's example, then the first
    history alone, then the rest."""
    code, line = EXAMPLES[0], re.compile(r"^(program|hidden) = .*$", re.MULTILINE)
    if framework == "jax":
        code = code.replace("import torch\n", EXAMPLES[1].split("\n")[0] + "\n")
        theirs = {found[1]: found[0] for found in line.finditer(EXAMPLES[1])}
        assert len(theirs) == 2
        code = line.sub(lambda found: theirs[found[1]], code)
    rows, other = {"torch": ("torch.from_numpy", "jax"), "jax": ("np.asarray", "torch")}[framework]
    code = re.sub(r"\bserved-\w+/", f"{served.name}/", code) + BATCHES.format(rows=rows, other=other)
    command = [sys.executable, "-c", code, json.dumps(histories)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=served.parent)
    assert not result.returncode, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_program_serves_without_this_package(runs: dict[str, Path], tmp_path: Path, framework: str):
    """Of a run of the other framework: histories shorter and longer than the model's, batches of one and of three."""
    run, to = runs["jax" if framework == "torch" else "torch"], tmp_path / "served"
    result = call(framework, "export", "--run", run, "--to", to, "--program", "--index", "none")
    assert result.exit_code == 0, result.output
    histories = [[17, 4, 25], [3], [*range(0, 40, 2)], [*range(1, 13)]]
    told, best, hidden, top, unwanted = served(framework, to, histories)
    assert unwanted == []

    model = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served(run / "best.safetensors", "cpu")
    np.testing.assert_allclose(hidden, model.hidden_states(Ragged.from_rows(histories)), rtol=1e-5, atol=1e-5)
    labels = pq.read_table(to / "catalog.parquet")["item"].to_pylist()
    (tmp_path / "histories.json").write_text(json.dumps([[labels[item] for item in row] for row in histories]))
    arguments = ("--sequences", tmp_path / "histories.json", "--no-filter-seen")
    rows = recommend(framework, run, tmp_path / "top.json", *arguments)
    assert [[labels[item] for item in row] for row in top] == [row["items"] for row in rows]
    assert best == top[:1]

    assert told["framework"] == framework
    assert told["version"] == importlib.import_module(framework).__version__
    assert told["platforms"] == (["cpu"] if framework == "torch" else ["cpu", "cuda"])
    assert told["input"]["shape"] == ["batch", 12]
    assert told["output"]["shape"] == ["batch", 16]
    assert told["bytes"] == (to / told["file"]).stat().st_size > 40 * 16 * 4
    for name in (told["file"], "encoder.json", "items.safetensors", "encoder.safetensors", "catalog.parquet"):
        assert f"served/{name}" in result.output.replace("\n", "")

    result = call(framework, "export", "--run", run, "--to", to, "--index", "none")
    assert result.exit_code == 0, result.output
    assert not [*to.glob("encoder.pt2"), *to.glob("*.bin"), *to.glob("*.json")]


@pytest.mark.parametrize(
    "changes",
    [{"model": "bert4rec", "num_features": 3}, {"model": "ligr", "table_dtype": "bf16"}],
    ids=["bert4rec", "ligr"],
)
def test_programs_of_every_model(tmp_path: Path, framework: str, changes: dict[str, Any]):
    config = ModelConfig(num_items=30, max_length=5, dim=8, num_blocks=1, **changes)
    inputs = np.array([[-1, -1, 4, 29, 0], [-1, -1, -1, -1, 3], [1, 2, 3, 4, 5]], np.int32)
    file = tmp_path / "program.pt2"
    if framework == "torch":
        import torch
        from cce_minus.torch_impl.models import build_model
        from cce_minus.torch_impl.serve import ServedModel

        torch.manual_seed(0)
        model = build_model(config).eval()
        if model.item_features is not None:
            model.item_features.normal_()
        ServedModel(model).encoder_program().write(file)
        with torch.no_grad():
            expected = model.next_item_hidden(torch.from_numpy(inputs)).numpy()
        program = torch.export.load(file)
        assert "model.item_features" not in program.state_dict  # the rows have them
        got = [program.module()(torch.from_numpy(rows)).numpy() for rows in (inputs[:1], inputs)]
    else:
        import jax.numpy as jnp
        from cce_minus.jax_impl.models import build_model
        from cce_minus.jax_impl.serve import ServedModel
        from flax import nnx
        from jax import export as jax_export

        model = build_model(config, rngs=nnx.Rngs(0))
        if model.item_features is not None:
            model.item_features[...] = jnp.asarray(np.random.default_rng(0).standard_normal((30, 3)), jnp.float32)
        ServedModel(model, "cpu").encoder_program().write(file)
        expected = model.next_item_hidden(jnp.asarray(inputs))
        program = jax_export.deserialize(bytearray(file.read_bytes()))
        got = [program.call(rows) for rows in (inputs[:1], inputs)]
    np.testing.assert_allclose(got[0], expected[:1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], expected, rtol=1e-5, atol=1e-5)


def test_a_program_of_too_many_items_is_refused(
    runs: dict[str, Path], tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
):
    command = framework, "export", "--run", runs["jax"], "--to", tmp_path / "export", "--program", "--index", "none"
    monkeypatch.setattr(encoder_program, "MOST_IN_PROGRAM", 40 * 16 * 4 - 1)
    line = error_of(call(*command))
    assert "program: expected item rows of at most 0.00 GiB" in line
    assert "encoder.safetensors" in line
    assert not (tmp_path / "export").exists()


def test_the_limit_of_a_program_is_that_of_its_rows():
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({}, 4), ({"table_dtype": "bf16"}, 2), ({"table_dtype": "bf16", "num_features": 1}, 4)
    )  # fmt: skip
    for changes, size in cases:
        config = ModelConfig(num_items=encoder_program.MOST_IN_PROGRAM // (64 * size), **changes)
        encoder_program.require_program(config)
        with pytest.raises(ConfigError, match="program: expected item rows"):
            encoder_program.require_program(replace(config, num_items=config.num_items + 1))


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("flatbuffers", ["--program", "--index", "none"], "program: expected the package flatbuffers"),
        ("faiss", [], "index: expected the package faiss-cpu"),
    ],
)
def test_a_missing_package_is_named(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    arguments: list[str],
    message: str,
):
    monkeypatch.setitem(sys.modules, package, None)
    line = error_of(call("jax", "export", "--run", runs["jax"], "--to", tmp_path / "export", *arguments))
    assert message in line
    assert "cce-minus[export]" in line
    assert not (tmp_path / "export").exists()


def test_export_finds_the_same_items_through_its_index(
    runs: dict[str, Path], data: Path, tmp_path: Path, framework: str
):
    faiss = pytest.importorskip("faiss")
    import torch
    from cce_minus.torch_impl.serve import load_served

    result = call(framework, "export", "--run", runs["torch"], "--to", tmp_path / "export")
    assert result.exit_code == 0, result.output
    vectors = load_file(tmp_path / "export" / "items.safetensors")["vectors"]
    assert vectors.shape == (40, 16)
    labels = pq.read_table(tmp_path / "export" / "catalog.parquet")["item"].to_pylist()
    encoder = load_served(tmp_path / "export" / "encoder.safetensors", "cpu").model
    history = load_dataset(data / "events.parquet").item[:12]
    with torch.no_grad():
        hidden = encoder.next_item_hidden(torch.from_numpy(history)[None]).numpy()
    index = faiss.read_index(str(tmp_path / "export" / "index.faiss"))
    scores, found = index.search(hidden, 10)
    np.testing.assert_allclose(scores[0], vectors[found[0]] @ hidden[0], rtol=1e-5)
    (row,) = recommend("torch", runs["torch"], tmp_path / "top.json", "--user", 0, "--no-filter-seen")
    assert [labels[item] for item in found[0]] == row["items"]


def test_an_export_without_an_index_leaves_none_of_before(
    runs: dict[str, Path], tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("faiss")
    to = tmp_path / "export"
    command = [framework, "export", "--run", runs["jax"], "--to", to]
    for options, most, has_index in (
        ([], 2**32, True),
        (["--index", "none"], 2**32, False),
        (["--index", "flat"], 0, True),
        ([], 0, False),
    ):
        monkeypatch.setattr(export, "MOST_INDEXED", most)
        result = call(*command, *options)
        assert result.exit_code == 0, result.output
        assert (to / "index.faiss").exists() == (to / "index.json").exists() == has_index
        assert ("export/index.faiss" in result.output.replace("\n", "")) == has_index
    expected = load_file(runs["jax"] / "best.safetensors")["item_table"]
    np.testing.assert_array_equal(load_file(to / "items.safetensors")["vectors"], expected)


def test_an_index_tells_its_recall(
    runs: dict[str, Path], data: Path, tmp_path: Path, framework: str, monkeypatch: pytest.MonkeyPatch
):
    """Of users of the run's data, and of item vectors where there are no such data."""
    pytest.importorskip("faiss")
    to, moved = tmp_path / "export", tmp_path / "moved.parquet"
    (data / "events.parquet").rename(moved)
    try:
        for arguments, queries, source in (([], 40, "item vectors"), (["--data", moved], 60, "test histories")):
            result = call(framework, "export", "--run", runs["torch"], "--to", to, "--index", "hnsw", *arguments)
            assert result.exit_code == 0, result.output
            told = json.loads((to / "index.json").read_text())
            assert told["kind"] == "hnsw"
            assert told["parameters"] == {"M": 32, "efConstruction": 200, "efSearch": 64}
            assert (told["queries"], told["queries_from"]) == (queries, source)
            assert 0.9 < told["recall@10"] <= 1
            assert told["milliseconds_a_query"] > 0
            assert told["bytes"] == (to / "index.faiss").stat().st_size
            assert f"recall@10 {told['recall@10']:.4f}" in result.output
            assert ("no file" in result.output) == (source == "item vectors")
    finally:
        moved.rename(data / "events.parquet")


def test_an_index_that_cannot_be_trained_is_refused(runs: dict[str, Path], tmp_path: Path):
    for kind, message in (
        ("ivf-pq", "expected 256 items or more"),
        ("lsh", "expected one of flat, hnsw, ivf-pq and none"),
    ):
        line = error_of(call("torch", "export", "--run", runs["torch"], "--to", tmp_path / "to", "--index", kind))
        assert f"index: {message}" in line
    assert not (tmp_path / "to").exists()
