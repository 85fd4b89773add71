"""What a machine has that trainings need: GPUs and their driver, packages, folders; read without a framework."""

from __future__ import annotations

import ctypes
import importlib.metadata as metadata
import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.wheels import cache_folder

PROJECT = "cce-minus"

NVIDIA, DISPLAYS = "0x10de", ("0x0300", "0x0302")
"""On the PCI bus: the maker, and the classes of GPUs with and without a display."""

COMPUTE_MODES = ("default", "exclusive", "prohibited", "exclusive process")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it: ``capability`` is 10 major + minor, ``memory`` in bytes."""

    name: str
    capability: int
    memory: int
    compute_mode: str = "default"


@dataclass(frozen=True)
class Package:
    """The version that is ``installed``, None of none, and those that are ``supported``, as pip writes them."""

    name: str
    installed: str | None
    supported: str
    is_supported: bool = True


@dataclass(frozen=True)
class Folder:
    """A folder that may not be there yet: bytes that are free where it is, and whether it can be written."""

    name: str
    path: str
    free: int
    is_writable: bool


@dataclass(frozen=True)
class Machine:
    """``driver`` is the version of NVIDIA's, with the newest CUDA that it knows; ``trouble`` what it says where it does
    not start; ``on_bus`` the NVIDIA GPUs that the computer has, with or without a driver; ``visible`` is
    CUDA_VISIBLE_DEVICES."""

    python: Package
    system: str
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    trouble: str | None = None
    on_bus: int = 0
    visible: str | None = None
    packages: tuple[Package, ...] = ()
    folders: tuple[Folder, ...] = ()


def this_machine(packages: Sequence[str], extras: Sequence[str], caches: Mapping[str, str]) -> Machine:
    """What is here of the ``packages``, in the versions that the project and its ``extras`` ask for, and of the
    folders ``caches`` beside the project's own."""
    gpus, driver, trouble = _driver()
    ranges = _supported(extras)
    folders = {"this folder": ".", "data cache": str(cache_folder()), **caches}
    return Machine(
        python=_package("python", platform.python_version(), ranges.get("python", "")),
        system=platform.platform(),
        gpus=gpus,
        driver=driver,
        trouble=trouble,
        on_bus=_on_bus(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        packages=tuple(_package(name, _version(name), ranges.get(name, "")) for name in packages),
        folders=tuple(_folder(name, Path(path).expanduser()) for name, path in folders.items()),
    )


def _supported(extras: Sequence[str]) -> dict[str, str]:
    """By name, the versions that the installed project asks for, itself and with its ``extras``."""
    from packaging.requirements import Requirement

    try:
        project = metadata.metadata(PROJECT)
    except metadata.PackageNotFoundError:  # run from its files
        return {}
    found: dict[str, str] = {"python": project["Requires-Python"] or ""}
    for line in project.get_all("Requires-Dist") or ():
        each = Requirement(line)
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found[each.name] = str(each.specifier)
    return found


def _package(name: str, installed: str | None, supported: str) -> Package:
    from packaging.specifiers import SpecifierSet

    fits = installed is not None and SpecifierSet(supported).contains(installed, prereleases=True)
    return Package(name, installed, supported, fits)


def _version(name: str) -> str | None:
    """That of the package ``name``, or of another that has its module, as lightning has lightning-fabric's."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        others = metadata.packages_distributions().get(name.replace("-", "_"), ())
        return metadata.version(others[0]) if others else None


def _folder(name: str, path: Path) -> Folder:
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return Folder(name, str(path), shutil.disk_usage(nearest).free, writable)


def _on_bus(root: Path = Path("/sys/bus/pci/devices")) -> int:
    def read(path: Path) -> str:
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError:
            return ""

    devices: Iterable[Path] = root.iterdir() if root.is_dir() else ()
    return sum(read(each / "vendor") == NVIDIA and read(each / "class")[:6] in DISPLAYS for each in devices)


_CAPABILITY, _COMPUTE_MODE = (75, 76), 20  # of CUDA's CUdevice_attribute


def _driver() -> tuple[tuple[Gpu, ...], str | None, str | None]:
    """The GPUs that CUDA's driver lets this process see, its version, and what it says if it does not start."""
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (), None, None
    version, count, text = ctypes.c_int(), ctypes.c_int(), ctypes.c_char_p()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    told = f"{_kernel_module()}CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    if status := cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        cuda.cuGetErrorName(status, ctypes.byref(text))
        name = (text.value or b"").decode() or str(status)
        return (), told, None if name == "CUDA_ERROR_NO_DEVICE" else name
    return tuple(_gpu(cuda, number) for number in range(count.value)), told, None


def _gpu(cuda: Any, number: int) -> Gpu:
    def attribute(which: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor = map(attribute, _CAPABILITY)
    return Gpu(name.value.decode(), 10 * major + minor, memory.value, COMPUTE_MODES[attribute(_COMPUTE_MODE)])


def _kernel_module() -> str:
    try:
        found = re.search(r"\d+\.\d+[.\d]*", Path("/proc/driver/nvidia/version").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return f"{found[0]}, " if found else ""
