"""The site has every public name and every page, and one version stands in all places."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch_impl", "jax_impl", "kernels", "recsys", "recsys.serving", "interop")


def public_names(package: str) -> list[str]:
    """``__all__`` of a package, by its name below ``cce_minus``."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_one_entry(package: str):
    page = (ROOT / "docs" / "api" / f"{package.partition('.')[0]}.md").read_text()
    entries = re.findall(rf"^::: cce_minus\.{package}\.(\w+)$", page, re.MULTILINE)
    assert sorted(entries) == sorted(public_names(package))


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path for glob in ("*.md", "docs/**/*.md", "benchmarks/**/*.md") for path in ROOT.glob(glob)}
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in pages)


def test_one_version_in_all_places():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## (\S+) \(.+\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    assert re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [version]
