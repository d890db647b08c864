"""Asks places on disk for hostile ids and tells, as JSON on stdout, what came of it and which files were opened.

A process of its own, for an audit hook can never be taken away again. Argument: a folder with `frames/`, `videos/`,
`frames.tar`, `frames.zip`, `videos.tar` and `videos.zip`, and a file `ids.json`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from encoders.locate import FrameStore, VideoStore
from encoders.places import frame_store, video_store
from engine.errors import RowError

opened: Counter[tuple[str, str, int]] = Counter()


def audit(event: str, args: tuple[Any, ...]) -> None:
    if event in {"open", "sqlite3.connect", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen"}:
        opened[event, str(args[0]), int(args[2]) if event == "open" and args[2] is not None else 0] += 1


def end_of(opening: AbstractContextManager[object]) -> str:
    try:
        with opening as found:
            return "none" if found is None else "found"
    except RowError as error:
        return str(error.kind)


def main() -> None:
    base = Path(sys.argv[1])
    frames = [frame_store(str(base / name)) for name in ("frames", "frames.tar", "frames.zip")]
    videos = [video_store(str(base / name)) for name in ("videos", "videos.tar", "videos.zip")]
    stores: list[FrameStore | VideoStore] = [*frames, *videos]
    for store in stores:
        store.prepare()
    ids = json.loads((base / "ids.json").read_text(encoding="utf-8"))
    sys.addaudithook(audit)
    by_id = [[name, *(end_of(store.open(name)) for store in stores)] for name in ids]
    by_column = [[name, *(end_of(store.open("7", name)) for store in videos)] for name in ids if name]
    json.dump({"by_id": by_id, "by_column": by_column, "opened": [[*key] for key in opened]}, sys.stdout)


if __name__ == "__main__":
    main()
