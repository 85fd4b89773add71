"""Install the wheel of a folder into a new environment of each Python that is there, and look at what it brings.

Without its dependencies, so that it takes seconds: every module is compiled, warnings being errors, the packages are
found where they belong, and the commands' modules exist. With ``--dependencies`` pip then brings what both frameworks
need, gigabytes, and `doctor` checks a step of each. The wheel was built from the sdist (`python -m build`).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
CHECK = """
import compileall, importlib.metadata, importlib.util, pathlib, sys, warnings
import cce_minus
warnings.simplefilter("error")
(folder,) = cce_minus.__path__
packages = sorted(path.name for path in pathlib.Path(folder).iterdir())
assert packages == ["interop", "jax_impl", "kernels", "recsys", "torch_impl"], packages
assert compileall.compile_dir(folder, quiet=1, force=True)
distribution = importlib.metadata.distribution("cce-minus")
for entry in distribution.entry_points:
    assert pathlib.Path(folder, *entry.module.split(".")[1:]).with_suffix(".py").is_file(), entry
print(f"Python {sys.version.split()[0]}: cce-minus {distribution.version}, as expected")
"""


def interpreter(version: str) -> str | None:
    """A Python of the ``version`` that runs: a version manager's shim may stand for one that is not installed."""
    found = shutil.which(f"python{version}")
    asked = found and subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return found if asked and asked.returncode == 0 else None


def check(python: str, wheel: Path, with_dependencies: bool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        programs = Path(folder) / "bin"
        install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-index", "--no-deps", wheel], check=True)
        checks: list[list[str | Path]] = [[programs / "python", "-c", CHECK]]
        if with_dependencies:
            subprocess.run([*install, f"{wheel}[torch,jax]"], check=True)
            checks += [[programs / f"cce-minus-{framework}", "doctor"] for framework in ("torch", "jax")]
        return all(subprocess.run(each, cwd=folder, check=False).returncode == 0 for each in checks)


def tags() -> list[str]:
    """Versions that the checkout is tagged as; none where there is no git."""
    git = shutil.which("git")
    found = git and subprocess.run(
        [git, "tag", "--points-at", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    return [tag for tag in found.stdout.split() if tag.startswith("v")] if found else []


def main(folder: str, *options: str) -> None:
    (wheel,), (_sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    if wrong := [tag for tag in tags() if tag != f"v{version}"]:
        sys.exit(f"{wheel.name}: the checkout is tagged {', '.join(wrong)}, expected v{version}")
    there = {version: interpreter(version) for version in VERSIONS}
    for version in VERSIONS:
        if there[version] is None:
            print(f"Python {version}: skipped, no python{version} that runs is on the PATH")
    pythons = [python for python in there.values() if python]
    if not pythons:
        sys.exit("no Python to install the wheel into")
    if failed := [python for python in pythons if not check(python, wheel.resolve(), "--dependencies" in options)]:
        sys.exit(f"{wheel.name}: not as expected with {', '.join(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
