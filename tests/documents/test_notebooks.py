"""The notebooks run in either framework, come to what they show, and lead to pages that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.documents.blocks import ROOT

NOTEBOOKS = sorted(ROOT.glob("docs/**/*.ipynb"))
LINK = re.compile(r"\]\(([^)#]+)\)")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def shown(notebook: Any) -> list[str]:
    """What its cells show as text, each number as one sign: scores differ between machines."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.text if output.output_type == "stream" else output.data["text/plain"] for output in outputs]
    return [re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "#", text)) for text in texts]


def text_of(notebook: Any, code: str) -> str:
    """What the cell with this ``code`` shows."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and code in cell.source]
    return cell.outputs[-1].data["text/plain"]


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_tutorial_beats_popularity_and_finds_the_next_chapter(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = ROOT / "docs" / "tutorial.ipynb"
    run, kept = read(path), read(path)
    run.cells[1].source = run.cells[1].source.replace("torch_impl", f"{framework}_impl", 1)
    NotebookClient(run, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shown(run) == shown(kept)
    quality = dict(re.findall(r"^(model|most popular) +(\S+)$", text_of(run, "quality ="), re.MULTILINE))
    assert float(quality["model"]) > 0.65 > 10 * float(quality["most popular"])
    for code in ("recommended =", "Recommender.load"):
        assert "Series 3, chapter 4" in text_of(run, code).splitlines()[1]
    assert "Series 3, chapter 3" in text_of(run, 'users=["somebody"]')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_as_it_ran_from_the_start(path: Path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs if output.output_type in ("error", "stream")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_a_notebook_lead_to_files(path: Path):
    links = [link for cell in read(path).cells if cell.cell_type == "markdown" for link in LINK.findall(cell.source)]
    assert [link for link in links if "://" not in link and not (path.parent / link).is_file()] == []
