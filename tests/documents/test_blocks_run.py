"""Every block of Python and every command of the pages runs, one after the other, on small logs and a CPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import pytest
import torch
from cce_minus.torch_impl import Recommender

from tests.documents.blocks import GUIDES, ROOT, blocks
from tests.documents.shop import open_cinema, open_shop

SECONDS = 240
"""That a command may take."""
ELSEWHERE = {"docs/migrating.md", "docs/quick_starts.md"}
"""Run by test_examples.py, block by block."""
NOT_RUN = {
    r"pip install ": "what it installs is there",
    r"python -m benchmarks\.demo\b": "by test_demo.py",
    r"python -m benchmarks\.(loss|catalog|scaling|runs|study) (run|host|whole|time|epochs)\b": "needs a GPU",
    r"python -m benchmarks\.(days|serving) run\b": "takes minutes to hours",
    r"(export )?JAX_\w+=|srun ": "takes several hosts",
    r"compute-sanitizer ": "needs a GPU",
    r"bash benchmarks/gpu_check\.sh\b": "needs a GPU",
    r"python -m benchmarks\.study collect RUN": "of runs that such a study keeps",
}
SMALLER = {
    "docs/large_catalogs.md": {
        "100_000_000": "5_000",
        'device="cuda"': 'device="cpu"',
        "--dim 128": "--dim 8 --epochs 2",
    },
    "docs/recommender.md": {"--batch-size 512": "--batch-size 8", "--epochs 200": "--epochs 2"},
}
"""What a page says of a large GPU and large logs, for a small CPU."""


def path_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def reason_not_to_run(command: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, command)), None)


def runnable(page: Path) -> bool:
    found = blocks(page.read_text())
    return path_of(page) not in ELSEWHERE and any(block.language in ("python", "sh") for block in found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Shell:
    """Runs a page's commands in a folder; what serves is left running until the page's end."""

    folder: Path
    server: subprocess.Popen[str] | None = None
    port: int = 0
    said: str = ""

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}

    def run(self, line: str) -> None:
        line = line.replace("localhost:8000", f"localhost:{self.port}")
        if self.server is not None:
            line = re.sub(r"\bPID\b", str(self.server.pid), line)
        run = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment(), timeout=SECONDS, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, f"{line}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
        self.said = run.stdout

    def serve(self, line: str) -> None:
        self.port = free_port()
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {re.sub('#.*', '', line)} --port {self.port}"],
            cwd=self.folder, env=self.environment(), text=True,
            stdout=subprocess.DEVNULL, stderr=(self.folder / "server.txt").open("w"),
        )  # fmt: skip
        deadline = time.monotonic() + SECONDS
        while True:
            assert self.server.poll() is None, (self.folder / "server.txt").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, (self.folder / "server.txt").read_text()
                time.sleep(0.2)

    def close(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(60) == 0, (self.folder / "server.txt").read_text()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """In a folder with the pages' files, which is the working directory."""
    open_shop(tmp_path)
    open_cinema(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    yield shell
    if shell.server is not None and shell.server.poll() is None:
        shell.server.kill()


def torch_names(page: str) -> dict[str, Any]:
    """What the blocks of PyTorch take as given."""
    num_items, dim = 5000, 64
    draw = torch.Generator().manual_seed(0)
    names: dict[str, Any] = {
        "hidden": torch.randn(8, 12, dim, generator=draw, requires_grad=True),
        "target": torch.randint(num_items, (8, 12), generator=draw),
        "item_table": torch.randn(num_items, dim, generator=draw, requires_grad=True),
    }
    if page == "docs/large_catalogs.md":
        names |= {"inputs": torch.randint(num_items, (8, 12), generator=draw), "seed": 0}
        names["encoder"] = lambda rows, inputs=None: rows if inputs is None else rows[inputs]
    if page == "docs/losses.md":
        names |= {"nn": torch.nn, "num_items": num_items, "rank": 0, "num_ranks": 1, "whole_table": names["item_table"]}
    if page == "docs/recommender.md":
        import pandas as pd

        names |= {"newer_log": pd.read_parquet("tuesday.parquet"), "in_stock": [f"sku{item}" for item in range(20)]}
    return names


def jax_names(page: str) -> dict[str, Any]:
    """What the blocks of JAX take as given."""
    found: dict[str, Any] = {
        name: jax.numpy.asarray(value.detach().numpy())
        for name, value in torch_names(page).items()
        if isinstance(value, torch.Tensor)
    }
    found["key"] = jax.random.key(0)
    if page == "docs/large_catalogs.md":
        found |= {"table": found["item_table"], "params": jax.numpy.float32(1)}
        found["encoder"] = lambda params, rows, inputs: params * rows[inputs]
    return found


def shape(value: Any) -> Any:
    """The names and kinds of what JSON says."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def smaller(code: str, page: str) -> str:
    for large, small in SMALLER.get(page, {}).items():
        code = code.replace(large, small)
    return code


def execute(code: str, page: str, names: dict[str, Any]) -> None:
    for framework, given in (("torch", torch_names), ("jax", jax_names)):
        if re.search(rf"^from cce_minus\.{framework}_impl", code, re.MULTILINE):
            names.update(given(page))
    exec(compile(code, page, "exec"), names)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """Of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("page", [page for page in GUIDES if runnable(page)], ids=path_of)
@pytest.mark.usefixtures("process_group")
def test_blocks_run(page: Path, shell: Shell):
    name, names = path_of(page), {}
    if name == "docs/serving.md":
        options: dict[str, Any] = {"titles": "titles.parquet", "epochs": 2, "max_length": 12, "out": "runs/films"}
        Recommender(**options).fit("films.parquet")
    if name.startswith("benchmarks/"):  # which draw beside their results
        shutil.copytree(ROOT / "benchmarks", shell.folder / "benchmarks")
    for block in blocks(page.read_text()):
        if block.language == "python":
            execute(smaller(block.code, name), name, names)
        for line in block.lines() if block.language == "sh" else ():
            if not line.startswith("#") and reason_not_to_run(line) is None:
                (shell.serve if " serve " in line else shell.run)(smaller(line, name))
        if block.language == "json":
            assert shape(json.loads(shell.said)) == shape(json.loads(block.code))
    shell.close()


@pytest.mark.parametrize("page", ["README.md"])
@pytest.mark.usefixtures("shell")
def test_blocks_of_either_framework_run_in_jax(page: str):
    found = [block for block in blocks((ROOT / page).read_text()) if "# or from cce_minus.jax_impl" in block.code]
    assert found
    for block in found:
        execute(block.code.replace("torch_impl", "jax_impl", 1), page, {})


def test_what_is_not_run_is_there():
    lines = [line for page in GUIDES for block in blocks(page.read_text()) for line in block.lines()]
    unused = [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)]
    assert unused == []
    text = {page: (ROOT / page).read_text() for page in SMALLER}
    assert [large for page, changes in SMALLER.items() for large in changes if large not in text[page]] == []


def test_shapes_differ_by_names_and_kinds():
    assert shape({"a": [1, 2], "b": "c"}) == shape({"a": [0.5, 0], "b": ""})
    assert shape([1, 2]) != shape([1]) != shape(["1"])
    assert shape({"a": 1}) != shape({"a": "1"})
    assert shape([{"a": 1}]) != shape([{"b": 1}])


def test_a_command_that_fails_is_told(shell: Shell):
    with pytest.raises(AssertionError, match="no such run"):
        shell.run("echo no such run; false")
    assert shell.said == ""
