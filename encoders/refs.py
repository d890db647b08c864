"""Frames named in a chat instead of being in it: `frames:<id>/<file name>`.

A file of chats with a million rows would hold every picture, in base64, once for each chat; a reference is a few bytes,
and is resolved when the chat is sent. Id and name are data: what reads a reference goes through a `FrameStore`, which
leads nowhere but into its place.
"""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

SCHEME = "frames:"


def frame_ref(identity: str, name: str) -> str:
    """The address of one frame; whatever is not a plain letter, digit or one of `-._~` is percent-encoded as UTF-8.

    Args:
        identity: the id of the row, to the letter.
        name: the frame's file name, such as `frame_0.jpg`.
    """
    return f"{SCHEME}{_quoted(identity)}/{_quoted(name)}"


def parsed_ref(url: str) -> tuple[str, str] | None:
    """The id and the file name of a reference; None if it is no such address."""
    if not url.startswith(SCHEME):
        return None
    identity, slash, name = url.removeprefix(SCHEME).partition("/")
    if not slash or not identity or not name or "/" in name:
        return None
    try:
        return unquote_to_bytes(identity).decode(), unquote_to_bytes(name).decode()
    except UnicodeError:
        return None


def _quoted(text: str) -> str:
    # A lone surrogate has no UTF-8; no file is called so, and what is looked up under the replacement is not found.
    return quote(text, safe="", errors="replace")
