"""Check that the wheel holds the five packages, their type markers, the page and the licence, and nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGES = ("kernels", "interop", "recsys", "torch_impl", "jax_impl")


def main(folder: str) -> None:
    (wheel,) = Path(folder).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    sources = {f"cce_minus/{path}" for package in PACKAGES for path in map(str, Path(package).rglob("*.py"))}
    markers = {f"cce_minus/{package}/py.typed" for package in PACKAGES}
    pages = {"cce_minus/recsys/server/page.html"}
    files = {name for name in names if ".dist-info/" not in name}
    problems = [f"missing: {name}" for name in sorted((sources | markers | pages) - files)]
    problems += [f"not expected: {name}" for name in sorted(files - sources - markers - pages)]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        problems.append("missing: LICENSE")
    if "License-Expression: MIT" not in metadata:
        problems.append("metadata does not name the licence")
    if problems:
        sys.exit(f"{wheel.name}:\n" + "\n".join(problems))
    print(f"{wheel.name}: {len(files)} files, as expected")


if __name__ == "__main__":
    main(sys.argv[1])
