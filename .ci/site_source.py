"""Lay out what the site is made of: ``build/site_source`` has every Markdown file and what they link, at the same
relative places, and ``build/api/cce_minus`` the five packages under their installed names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels", "interop", "recsys", "torch_impl", "jax_impl")
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "benchmarks/**/*.md")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")  # those with a scheme, as https:, are left out


def pages() -> list[Path]:
    return sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})


def linked(page: Path) -> set[Path]:
    """The files that a page links; those that are missing are left for MkDocs to name."""
    targets = {(page.parent / link).resolve() for link in LINK.findall(page.read_text(encoding="utf-8"))}
    return {path for path in targets if path.is_file() and path.is_relative_to(ROOT)}


def main() -> None:
    source, api = ROOT / "build" / "site_source", ROOT / "build" / "api" / "cce_minus"
    for folder in (source, api):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for path in {path for page in pages() for path in (page, *linked(page))}:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (source / "assets").mkdir()
    shutil.copy(Path(__file__).parent / "iframe-worker.js", source / "assets")
    for package in PACKAGES:
        (api / package).symlink_to(ROOT / package, target_is_directory=True)


if __name__ == "__main__":
    main()
