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
    "kernels": {"jax", "flax", "optax", "lightning_fabric"},
    "interop": {"flax", "optax", "lightning_fabric"},
    "recsys": {"torch", "jax", "flax", "optax", "lightning_fabric", "triton"},
    "torch_impl": {"jax", "flax", "optax", "orbax"},
    "jax_impl": {"lightning_fabric"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a file below ROOT, a package's its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """What a module imports, by full names: ``package.module.name`` for ``from .module import name`` in ``package``.

    The project's own names come without ``cce_minus.``; what only type checkers read and what runs only where the
    module is the program is left out.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and {"TYPE_CHECKING", "__name__"} & {
            name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)
        }:
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{origin}.{alias.name}".strip(".") for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return {name.removeprefix("cce_minus.") for name in found}


def imports_of(path: Path) -> set[str]:
    return imports(path.read_text(), name_of(path), path.name == "__init__.py")


def direction_errors(package: str, names: set[str]) -> list[str]:
    roots = {name.split(".")[0] for name in names}
    return sorted((roots & set(PACKAGES)) - ALLOWED[package] - {package}) + sorted(roots & FOREIGN[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_import_direction(package: str):
    for path in sources(package):
        assert not direction_errors(package, imports_of(path)), f"{path} imports what {package} must not"


ROOMS = {
    "kernels": ("draws", "negatives", "plan", "device", "launch"),
    "recsys": ("data", "protocol", "baselines", "run", "serving", "server", "cli"),
    "torch_impl": ("loss", "tables", "models", "serving", "training"),
    "jax_impl": ("loss", "tables", "models", "serving", "training"),
}
"""Sub-packages in order: none imports a later one."""


def order_errors(package: str, module: str, names: set[str]) -> list[str]:
    """Which of ``names`` are of a room after the module's own; a package's own files are of no room."""

    def place(name: str) -> int:
        root, room = [*name.split("."), ""][:2]
        return ROOMS[package].index(room) if root == package and room in ROOMS[package] else -1

    return sorted(name for name in names if 0 <= place(module) < place(name))


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_earlier_rooms_only(package: str):
    folders = {path.name for path in (ROOT / package).iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(ROOMS[package])
    for path in sources(package):
        assert not order_errors(package, name_of(path), imports_of(path)), f"{path} imports a later room of {package}"


def test_an_import_of_a_later_room_is_seen():
    names = imports("from ..run import config\nfrom .. import cli, data", "recsys.protocol.splits", False)
    assert order_errors("recsys", "recsys.protocol.splits", names) == ["recsys.cli", "recsys.run.config"]
    assert order_errors("recsys", "recsys.catalog", {"recsys.data.catalog"}) == []


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("from ..kernels import errors", "recsys.batches", ["kernels"]),
        ("from .. import kernels", "recsys.batches", ["kernels"]),
        ("from ...kernels.plan import tiles", "recsys.data.tables", ["kernels"]),
        ("from .... import jax_impl", "torch_impl.loss.a.b", ["jax_impl"]),
        ("def f():\n    import cce_minus.jax_impl.loss", "torch_impl.loss.ops", ["jax_impl"]),
        ("if True:\n    from jax import numpy", "torch_impl.loss.ops", ["jax"]),
        ("from ...kernels import errors\nfrom . import ops", "torch_impl.loss.rows", []),
        ("if TYPE_CHECKING:\n    import torch", "recsys.batches", []),
    ],
)
def test_the_direction_of_imports_at_any_depth_is_seen(source: str, module: str, wrong: list[str]):
    assert direction_errors(module.split(".")[0], imports(source, module, False)) == wrong


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, each of which imports the next; empty where there is none."""
    done: set[str] = set()
    path: list[str] = []

    def search(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        found = next((cycle for other in sorted(graph[module]) if (cycle := search(other))), [])
        path.pop()
        done.add(module)
        return found

    return next((cycle for module in sorted(graph) if (cycle := search(module))), [])


def test_no_modules_import_each_other():
    """Imports inside functions count; a package's own file and its modules do not make a circle."""
    files = {name_of(path): path for package in PACKAGES for path in sources(package)}

    def owner(name: str) -> str | None:
        """The file that an imported name is of."""
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name or None

    graph = {
        module: {other for name in imports_of(path) if (other := owner(name)) and other != module}
        for module, path in files.items()
    }
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def test_file_sizes():
    for folder in (*PACKAGES, "tests", "benchmarks", "docs"):
        for path in sources(folder):
            limit = 400 if folder == "kernels" else 300
            lines = path.read_text().splitlines()
            assert len(lines) <= limit, f"{path.relative_to(ROOT)} has {len(lines)} lines, more than {limit}"
            assert all(len(line) <= 120 for line in lines), f"{path.relative_to(ROOT)} has lines of over 120 columns"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_torch_side_imports_neither_triton_nor_jax_nor_fabric():
    loaded = run_python(
        "import sys, torch; before = set(sys.modules); import cce_minus.torch_impl;"
        "print(*(m for m in ('jax', 'lightning_fabric', 'cce_minus.kernels.device.tiles') if m in sys.modules))"
    )
    assert loaded.split() == []


def test_jax_side_imports_neither_flax_nor_fabric():
    loaded = run_python(
        "import sys; import cce_minus.jax_impl;"
        "print(*(m for m in ('flax', 'lightning_fabric', 'cce_minus.kernels.device.tiles') if m in sys.modules))"
    )
    assert loaded.split() == []


def test_every_package_is_typed():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
