"""What a provider receives of real photographs, seen by a server that is not ours."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from tests.fakes.commands import cli, lines_of, run_arguments
from tests.fakes.photos import PHONE_SIZES, encoded, phone_photo, photographs, psnr_db

pytestmark = pytest.mark.slow

NAMES = ("astronaut", "coffee", "chelsea", "china")


class Keeping(BaseHTTPRequestHandler):
    """Keeps every body, answers all alike."""

    bodies: ClassVar[list[dict[str, Any]]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        said = {
            "model": "m",
            "choices": [{"message": {"role": "assistant", "content": "seen"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 1},
        }
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        pass


@contextmanager
def keeping_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Handler", (Keeping,), {"bodies": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", handler.bodies  # type: ignore[attr-defined]  # made above
        finally:
            server.shutdown()
            thread.join()


def make_videos(folder: Path) -> dict[str, list[Image.Image]]:
    """One video per phone format: a dozen frames of real photographs, so that frame_10 must follow frame_9."""
    videos: dict[str, list[Image.Image]] = {}
    names = [name for name in NAMES if name in photographs()]
    for number, size in enumerate(PHONE_SIZES):
        identity = f"00{number}"
        frames = [phone_photo(names[at % len(names)], size).rotate(at * 7) for at in range(12)]
        (folder / "frames" / identity).mkdir(parents=True)
        for at, frame in enumerate(frames):
            (folder / "frames" / identity / f"frame_{at}.jpg").write_bytes(encoded(frame, quality=92))
        videos[identity] = frames
    (folder / "videos.csv").write_text("meta_id,transcript,meta_desc\n000,said,written\n001,,only written\n")
    return videos


def received(body: dict[str, Any]) -> list[Image.Image]:
    parts = body["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["image_url"] * (len(parts) - 1) + ["text"]
    pictures: list[Image.Image] = []
    for part in parts[:-1]:
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        pictures.append(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
    return pictures


@pytest.mark.parametrize(
    ("fit", "sizes"),
    [("none", PHONE_SIZES), ("560x560", ((315, 560), (315, 560))), ("480x854", ((480, 853), (480, 853)))],
)
def test_the_provider_receives_the_same_pictures_in_order_at_the_promised_size(
    tmp_path: Path, fit: str, sizes: tuple[tuple[int, int], ...]
) -> None:
    videos = make_videos(tmp_path)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("What do you see?")
    more = ("--frames-dir", tmp_path / "frames", "--fit", fit, "--system-prompt", prompt, "--max-tokens", 321)
    with keeping_server() as (url, bodies):
        said = cli(*run_arguments(tmp_path / "videos.csv", tmp_path / "out", url, *more))
    assert said.code == 0, said.err
    texts = {body["messages"][1]["content"][-1]["text"]: body for body in bodies}
    by_id = {
        "000": texts["TRANSCRIPT:\nsaid\n\nDESCRIPTION:\nwritten"],
        "001": texts["DESCRIPTION:\nonly written"],
    }
    lines = {line["meta_id"]: line for line in lines_of(tmp_path / "out")}
    for (identity, frames), size in zip(videos.items(), sizes, strict=True):
        body = by_id[identity]
        assert (body["model"], body["max_tokens"]) == ("simulated/vision", 321)
        assert body["messages"][0]["content"].endswith("\n\nWhat do you see?")
        pictures = received(body)
        assert [picture.size for picture in pictures] == [size] * 12
        for picture, frame in zip(pictures, frames, strict=True):
            assert psnr_db(picture.convert("RGB"), frame.resize(size, Image.Resampling.LANCZOS)) > 30
        noted = lines[identity]["frames"]
        assert [(note["index"], note["width"], note["height"]) for note in noted] == [(at, *size) for at in range(12)]


def test_bytes_pass_untouched_when_nothing_is_to_fit(tmp_path: Path) -> None:
    make_videos(tmp_path)
    more = ("--frames-dir", tmp_path / "frames", "--fit", "none", "--max-frames", 3)
    with keeping_server() as (url, bodies):
        assert cli(*run_arguments(tmp_path / "videos.csv", tmp_path / "out", url, *more)).code == 0
    kept = {
        part["image_url"]["url"].partition(",")[2]
        for body in bodies
        for part in body["messages"][1]["content"]
        # This server's answers are none, so each row is asked a second time, as text.
        if isinstance(part, dict) and part["type"] == "image_url"
    }
    on_disk = {
        base64.b64encode((tmp_path / "frames" / identity / f"frame_{at}.jpg").read_bytes()).decode()
        for identity in ("000", "001")
        for at in (0, 5, 11)
    }
    assert kept == on_disk


def test_no_pixel_reaches_the_run_folder(tmp_path: Path) -> None:
    make_videos(tmp_path)
    more = ("--frames-dir", tmp_path / "frames", "--fit", "none")
    with keeping_server() as (url, _):
        assert cli(*run_arguments(tmp_path / "videos.csv", tmp_path / "out", url, *more)).code == 0
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written < 40_000
