"""One way to make JPEGs small, driven line by line from `bench.stages`, in whatever environment has its libraries.

python peer_images.py ROUTE FOLDER

FOLDER holds `<width>x<height>/<name>.jpg`. A line read is a folder of it, and is answered with the CPU seconds of one
pass over it. After `keep N` on the line, what came out is written beside the sources, as `<name>.N`. All are 9:16.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = (315, 560)
QUALITY = 80

Route = Callable[[bytes], bytes]


def ours() -> tuple[Route, str]:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    image, fit = importlib.import_module("encoders.image"), importlib.import_module("encoders.fit")
    box = fit.Fit(rule="560x560", model="m", box=(560, 560))
    return lambda data: bytes(image.prepare(data, box).data), str(image.picture_libraries())


def _pillow(*, draft: bool) -> tuple[Route, str]:
    pil = importlib.import_module("PIL.Image")

    def route(data: bytes) -> bytes:
        picture = pil.open(io.BytesIO(data))
        if draft:
            picture.draft("RGB", TARGET)
        picture = picture.resize(TARGET, pil.Resampling.LANCZOS, reducing_gap=2.0 if draft else None)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
        return out.getvalue()

    return route, f"Pillow {pil.__version__}"


def pillow() -> tuple[Route, str]:
    return _pillow(draft=False)


def pillow_draft() -> tuple[Route, str]:
    return _pillow(draft=True)


def _opencv(*, reduced: bool) -> tuple[Route, str]:
    cv2, numpy = importlib.import_module("cv2"), importlib.import_module("numpy")
    cv2.setNumThreads(1)
    flags = cv2.IMREAD_REDUCED_COLOR_2 if reduced else cv2.IMREAD_COLOR
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]

    def route(data: bytes) -> bytes:
        picture = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), flags)
        small = cv2.resize(picture, TARGET, interpolation=cv2.INTER_AREA)
        return bytes(cv2.imencode(".jpg", small, settings)[1])

    return route, f"OpenCV {cv2.__version__}"


def opencv() -> tuple[Route, str]:
    return _opencv(reduced=False)


def opencv_reduced() -> tuple[Route, str]:
    return _opencv(reduced=True)


def simplejpeg_opencv() -> tuple[Route, str]:
    cv2, simplejpeg = importlib.import_module("cv2"), importlib.import_module("simplejpeg")
    cv2.setNumThreads(1)

    def route(data: bytes) -> bytes:
        picture = simplejpeg.decode_jpeg(data, min_width=TARGET[0], min_height=TARGET[1])
        small = cv2.resize(picture, TARGET, interpolation=cv2.INTER_AREA)
        return bytes(simplejpeg.encode_jpeg(small, QUALITY, "RGB", "420"))

    return route, f"simplejpeg {simplejpeg.__version__}, OpenCV {cv2.__version__}"


def torchvision() -> tuple[Route, str]:
    torch, vision = importlib.import_module("torch"), importlib.import_module("torchvision")
    torch.set_num_threads(1)
    functional, picture_io = importlib.import_module("torchvision.transforms.v2.functional"), vision.io
    bilinear = vision.transforms.InterpolationMode.BILINEAR

    def route(data: bytes) -> bytes:
        picture = picture_io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        small = functional.resize(picture, [TARGET[1], TARGET[0]], bilinear, antialias=True)
        return bytes(picture_io.encode_jpeg(small, QUALITY).numpy())

    return route, f"torchvision {vision.__version__}, torch {torch.__version__}"


ROUTES: dict[str, Callable[[], tuple[Route, str]]] = {
    made.__name__: made for made in (ours, pillow, pillow_draft, opencv, opencv_reduced, simplejpeg_opencv, torchvision)
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    route, said = ROUTES[name]()
    _say({"libraries": said})
    read: dict[str, dict[Path, bytes]] = {}
    for line in sys.stdin:
        keep, _, size = line.strip().rpartition(" ")
        if size not in read:
            read[size] = {path: path.read_bytes() for path in sorted((folder / size).glob("*.jpg"))}
        started = time.process_time()
        made = {path: route(data) for path, data in read[size].items()}
        spent = time.process_time() - started
        if keep:
            for path, data in made.items():
                path.with_suffix(f".{keep.partition(' ')[2]}").write_bytes(data)
        _say({"cpu_s": spent, "pictures": len(made)})


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
