"""The direction of imports, and the fences around libraries, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("engine", "encoders", "sinks", "labels", "bench")

ALLOWED = {
    "engine": {"engine"},
    "encoders": {"encoders", "engine.types", "engine.ports", "engine.errors", "engine.providers"},
    "sinks": {"sinks", "engine.types", "engine.ports", "engine.errors", "engine.providers"},
    "labels": {"labels", "engine", "encoders", "sinks"},
    "bench": {"bench", "engine", "encoders", "sinks", "labels"},
}
"""What each room may import of ours."""

HEIGHT = {
    name: height
    for height, names in enumerate(
        (
            ("types", "secret", "clock", "overdue", "hands"),
            ("errors", "providers"),
            (
                "ports",
                "hints",
                "prices",
                "link",
                "marks",
                "money",
                "breaker",
                "lengths",
                "ladder",
                "cuts",
                "levels",
                "clouds",
                "printable",
            ),
            ("worker", "verdicts", "sharing", "throttle", "crowd", "cells", "textlines"),
            ("parquet",),
            ("readers",),
            ("inputs",),
            ("process", "source", "replies"),
            ("encode",),
            ("config",),
            ("stop", "signals", "limits", "brake", "client", "port", "shares"),
            ("lanes", "notices"),
            ("gate", "stats"),
            ("probe", "write", "space", "sums", "members"),
            ("attempt", "life"),
            ("call", "console", "report"),
            ("run",),
            ("crew", "member"),
        )
    )
    for name in names
}
"""Inside the engine a file imports only what stands lower."""

FENCES = {
    "aiohttp": {"bench/yardstick.py", "engine/client.py", "engine/notices.py"},
    "tenacity": {"engine/call.py"},
    "PIL": {
        "encoders/image.py",
        "bench/demo.py",
        "bench/photographs.py",
        "bench/stages_video.py",
        "bench/throughput.py",
    },
    "simplejpeg": {"encoders/jpeg.py"},
    "av": {
        "bench/stages_video.py",
        "encoders/container.py",
        "encoders/scale.py",
        "encoders/shown.py",
        "encoders/video.py",
    },
    "pickle": {"engine/worker.py", "engine/process.py", "engine/port.py"},
    "rich": {"engine/console.py"},
    "uvloop": {"labels/loop.py"},
    "cyclopts": {
        "bench/command.py",
        "cli.py",
        "labels/flags.py",
        "labels/infer/flags.py",
        "labels/generate/flags.py",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "labels" / "commands").glob("*.py")),
    },
    "httptools": {"bench/connection.py"},
    "matplotlib": {"bench/plots.py"},
    "fsspec": {"encoders/storage.py"},
    "sqlite3": {"encoders/archive.py", "encoders/index.py", "sinks/answers.py"},
    "skimage": {"bench/photographs.py"},
    "sklearn": {"bench/photographs.py", "labels/score/points.py"},
    "pyarrow": {"engine/parquet.py", "labels/export.py"},
}
"""Libraries that only these files may name."""


def sources() -> list[Path]:
    return [ROOT / "cli.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]


def imports(path: Path) -> set[str]:
    """Modules a file imports, dotted; for `from a import b` both `a` and, if it is a file of ours, `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in inner if (ROOT / (name.replace(".", "/") + ".py")).exists()}
            found |= files or {node.module}
    return found


def test_there_is_something_to_check() -> None:
    assert len(sources()) > 30
    assert "engine.call" in imports(ROOT / "engine" / "run.py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    if room == "cli.py":
        return
    ours = {name for name in imports(path) if name.split(".")[0] in {*ROOMS, "cli", "tests"}}
    for name in ours:
        assert name in ALLOWED[room] or name.split(".")[0] in ALLOWED[room], f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "engine").glob("*.py")), ids=lambda path: path.name)
def test_inside_the_engine_imports_point_down(path: Path) -> None:
    if path.stem == "__init__":
        assert not [name for name in imports(path) if name.startswith("engine")]
        return
    for name in imports(path):
        if name.startswith("engine."):
            assert HEIGHT[name.split(".")[1]] < HEIGHT[path.stem], f"{path.name} imports {name}"


@pytest.mark.parametrize("library", sorted(FENCES))
def test_a_fenced_library_is_named_only_inside_its_fence(library: str) -> None:
    named = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert named <= FENCES[library]
    assert named, f"the fence around {library} stands around nothing"
