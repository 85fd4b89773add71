"""The shape of the project: import directions, file sizes, lazy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels", "interop", "recsys", "torch_impl", "jax_impl")
ALLOWED = {
    "kernels": set(),
    "interop": set(),
    "recsys": set(),
    "torch_impl": {"kernels", "interop", "recsys"},
    "jax_impl": {"kernels", "interop", "recsys"},
}
FOREIGN = {
    "kernels": {"jax", "flax", "optax", "lightning"},
    "interop": {"flax", "optax", "lightning"},
    "recsys": {"torch", "jax", "flax", "optax", "lightning", "triton"},
    "torch_impl": {"jax", "flax", "optax", "orbax"},
    "jax_impl": {"lightning"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Top-level modules a file imports, with ``cce_minus.x`` and ``from ..x`` both as ``cce_minus.x``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {".".join(alias.name.split(".")[:2]) if alias.name.startswith("cce_minus") else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 2:
                names = [module.split(".")[0]] if module else [alias.name for alias in node.names]
                found |= {f"cce_minus.{name}" for name in names}
            elif node.level == 0 and module.startswith("cce_minus"):
                found.add(".".join(module.split(".")[:2]))
            elif node.level == 0:
                found.add(module.split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_import_direction(package: str):
    for path in sources(package):
        for name in imports(path):
            if name.startswith("cce_minus."):
                other = name.removeprefix("cce_minus.")
                assert other == package or other in ALLOWED[package], f"{path.name} imports {name}"
            assert name not in FOREIGN[package], f"{path.name} imports {name}"


def test_file_sizes():
    for folder in (*PACKAGES, "tests", "benchmarks"):
        for path in sources(folder):
            limit = 400 if folder == "kernels" else 300
            lines = len(path.read_text().splitlines())
            assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines, more than {limit}"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_torch_side_imports_neither_triton_nor_jax_nor_lightning():
    loaded = run_python(
        "import sys, torch; before = set(sys.modules); import cce_minus.torch_impl;"
        "print(*(m for m in ('jax', 'lightning', 'cce_minus.kernels.tile_kernels') if m in sys.modules))"
    )
    assert loaded.split() == []


def test_jax_side_imports_neither_flax_nor_lightning():
    loaded = run_python(
        "import sys; import cce_minus.jax_impl;"
        "print(*(m for m in ('flax', 'lightning', 'cce_minus.kernels.tile_kernels') if m in sys.modules))"
    )
    assert loaded.split() == []


def test_every_package_is_typed():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
