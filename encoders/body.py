"""Messages to the final JSON bytes of a chat completion, with one hole where max_tokens and the lane's fields go.

Base64 is spliced in between constant pieces; only short texts pass through a JSON encoder. The message format is that
of the labelling pipeline users come from: system prompt, frames as data URLs in order, then one text part; a plain
string where there are no frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson
import pybase64

from encoders.fit import Picture

SECTIONS = (("transcript", "TRANSCRIPT"), ("description", "DESCRIPTION"), ("embedded_text", "EMBEDDED_TEXT"))
TAIL = b"}"
GAP = " [...] "
"""Where the middle of a text was left out."""


def user_text(fields: Mapping[str, str]) -> str:
    """The sections that have content, each under its heading, a blank line between them."""
    return "\n\n".join(f"{title}:\n{text}" for key, title in SECTIONS if (text := fields.get(key, "").strip()))


def json_text(text: str) -> bytes:
    """A JSON string; lone surrogates, which no JSON reader takes, become U+FFFD."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def shortened(fields: Mapping[str, str], max_chars: int | None) -> tuple[dict[str, str], int]:
    """The sections with the middle of the longest cut out, the transcript first, and how many characters that took."""
    kept = {key: fields.get(key, "").strip() for key, _ in SECTIONS}
    over = 0 if max_chars is None else max(0, sum(map(len, kept.values())) - max_chars)
    left = over
    for key, _ in SECTIONS:
        if left <= 0:
            break
        kept[key], taken = without_middle(kept[key], left)
        left -= taken
    return kept, over


def without_middle(text: str, chars: int) -> tuple[str, int]:
    """The text with its middle left out, so that it is shorter by so many characters, and how many were left out."""
    stays = max(0, len(text) - chars - len(GAP))
    head = stays - stays // 2
    return (f"{text[:head]}{GAP}{text[len(text) - stays // 2 :]}" if stays else "", len(text) - stays)


def opening(system_prompt: str) -> bytes:
    """Everything before the user's content."""
    return b'{"messages":[{"role":"system","content":%b},{"role":"user","content":' % json_text(system_prompt)


def closing(extra: Iterable[tuple[str, object]]) -> bytes:
    """Everything between the user's content and the hole; `extra` are further fields of the body."""
    fields = b"".join(b"%b:%b," % (orjson.dumps(name), orjson.dumps(value)) for name, value in extra)
    return b'}],%b"stream":false,"max_tokens":' % fields


def plain_content(text: str) -> bytes:
    return json_text(text)


def framed_content(pictures: Sequence[Picture], text: str) -> list[bytes]:
    """The content array in pieces, to be joined with what stands around it."""
    pieces = [b"["]
    for picture in pictures:
        pieces += (
            b'{"type":"image_url","image_url":{"url":"data:%b;base64,' % picture.mime.encode(),
            pybase64.b64encode(picture.data),
            b'"}},',
        )
    pieces += (b'{"type":"text","text":', json_text(text), b"}]")
    return pieces
