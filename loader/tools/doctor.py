"""Doctor: report versions, disk, memory and devices of this machine, and problems with them."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from climbstream.loader.core.engines.local import cores
from climbstream.loader.core.files import default_cache

_PACKAGES = (
    "climbstream numpy torch numba zstandard xxhash fsspec click datasets faiss-cpu faiss-gpu "
    "scikit-learn tokenizers pyarrow lightgbm transformers huggingface-hub boto3 aiohttp "
    "mosaicml-streaming"
).split()


@dataclass(slots=True)
class Diagnosis:
    """Versions, resources and problems of this machine."""

    facts: dict[str, str] = field(default_factory=dict)
    """Descriptions of resources, such as the memory, by name."""
    versions: dict[str, str | None] = field(default_factory=dict)
    """Version of each package, by name; None: the package is not installed."""
    troubles: list[str] = field(default_factory=list)
    """Problems, each with its remedy if there is one."""


def diagnose() -> Diagnosis:
    """Return versions of packages, the resources of this machine, and the problems with them."""
    diagnosis = Diagnosis()
    for package in _PACKAGES:
        try:
            diagnosis.versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            diagnosis.versions[package] = None
    if diagnosis.versions["faiss-cpu"] and diagnosis.versions["faiss-gpu"]:
        diagnosis.troubles.append(
            "faiss-cpu and faiss-gpu are both installed and own the same folder: "
            "pip uninstall both, then install one of them"
        )
    cache = default_cache()
    free = shutil.disk_usage(_existing(cache)).free / 2**30
    if free < 1:
        diagnosis.troubles.append(f"only {free:.1f} GiB are free for the cache {cache}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    diagnosis.facts = {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "memory": f"{memory:.1f} GiB",
        "cache": f"{cache}, {free:.0f} GiB free",
        "devices": _devices(),
        "hub": "token found" if _has_hub_token() else "no token; public data sets only",
    }
    return diagnosis


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _devices() -> str:
    import torch  # this import takes seconds

    if not torch.cuda.is_available():
        return "CPU alone"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _has_hub_token() -> bool:
    try:
        from huggingface_hub import get_token  # an extra
    except ModuleNotFoundError:
        return False
    return get_token() is not None
