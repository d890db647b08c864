"""Chats that are to teach a model, checked before anything is sent, and the bytes that will be sent of them.

Providers look at a file when it has been sent whole, and some only when the job runs. So everything they document is
checked here, a line in memory at a time. What is sent is a copy of `messages` alone: other keys, such as `meta_id`, are
refused. Where any content of any file is a list of parts, as with pictures, every content becomes one: a file whose
contents have two forms is refused or, worse, read by half.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pybase64

from encoders.chat import BYTES_PER_TOKEN
from encoders.image import size_of
from encoders.refs import SCHEME
from encoders.tokens import image_tokens
from engine.errors import ConfigError, InputError
from labels.messages import Chat, Message, pictures_of, read_chats, text_of

SHOWN = 10
"""So many wrong lines are named."""
MESSAGE_KEYS = frozenset({"role", "content", "weight"})
PICTURE_TYPES = ("data:image/jpeg;base64,", "data:image/png;base64,", "data:image/webp;base64,")
SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
"""Ends of lines to some readers; within a string of JSON, where alone they can stand, an escape says the same."""
_WRAPPED = orjson.dumps([{"type": "text", "text": ""}])
WRAP_BYTES = len(_WRAPPED) - len(b'""')
"""What a string grows by when it becomes a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a provider documents of a file."""

    file_bytes: int
    """At most."""
    examples: int
    """At least, in the training file."""
    pictured: int | None
    """Examples with pictures, at most; None if it does not say."""
    pictures: int
    """In one example, at most."""
    picture_bytes: int
    """Of one picture, at most."""
    source: str
    """Where this stands, and when it was looked up."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """What one file holds; grows while it is read."""

    path: Path
    identity: tuple[int, ...]
    """What changes when the file does."""
    examples: int = 0
    pictured: int = 0
    """Examples with pictures."""
    pictures: int = 0
    text_bytes: int = 0
    picture_tokens: int = 0
    uncounted: int = 0
    """Pictures of which nobody knows what the model counts for them."""
    parts: bool = False
    """Whether any content is a list."""
    strings: int = 0
    """Contents that are none."""
    line_bytes: int = 0
    """Of all lines as they would be sent, each content in its own form."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Keys beside `messages`, and in how many lines."""

    @property
    def tokens(self) -> int:
        """Roughly, once through the file."""
        return self.text_bytes // BYTES_PER_TOKEN + self.picture_tokens

    def sent_bytes(self, *, parts: bool) -> int:
        """The size of what is sent."""
        return self.line_bytes + (self.strings * WRAP_BYTES if parts else 0)


def check_file(path: Path, *, flag: str, rules: Rules, model: str, teaches: bool) -> Facts:
    """Read a whole file, in the memory of one line.

    Args:
        path: a JSONL file of chats.
        flag: which flag named it, for messages.
        rules: the provider's.
        model: whose tokens are counted for pictures.
        teaches: whether it is the training file, which must have enough examples.

    Raises:
        ConfigError: there is no such file.
        InputError: lines would be refused; the first are named.
    """
    facts = Facts(path=path, identity=identity_of(path, flag=flag))
    wrong: list[str] = []
    count = 0
    for chat in read_chats(path, flag=flag):
        fault = fault_in(chat.messages, rules) or _take(facts, chat, model=model)
        if fault:
            count += 1
            if len(wrong) < SHOWN:
                wrong.append(f"line {chat.line}: {fault}")
    if wrong:
        more = f"\n  and {count - len(wrong):,} more" if count > len(wrong) else ""
        raise InputError(f"{path}: {count:,} lines cannot be used for fine-tuning:\n  " + "\n  ".join(wrong) + more)
    _check_numbers(facts, rules=rules, teaches=teaches)
    return facts


def check_size(facts: Facts, *, parts: bool, rules: Rules) -> None:
    """Refuse what is too large for one upload.

    Raises:
        InputError: it is.
    """
    size = facts.sent_bytes(parts=parts)
    if size > rules.file_bytes:
        raise InputError(
            f"{facts.path} would be sent as {size:,} bytes; at most {rules.file_bytes:,} are taken ({rules.source}). "
            "Send fewer examples, or fewer or smaller frames (build with --max-frames and --fit); or send it by the "
            "provider's own tools and name it with --train-id or --val-id"
        )


def lines_to_send(facts: Facts, *, flag: str, parts: bool, rules: Rules) -> Iterator[bytes]:
    """The lines that are sent of a file that was checked, newlines included.

    Raises:
        InputError: it was changed since.
    """
    examples = 0
    for chat in read_chats(facts.path, flag=flag):
        if fault_in(chat.messages, rules):
            break
        examples += 1
        yield line_of(chat.messages, parts=parts)
    if examples != facts.examples or identity_of(facts.path, flag=flag) != facts.identity:
        raise InputError(f"{facts.path} was changed while it was read")


def line_of(messages: Sequence[Message], *, parts: bool) -> bytes:
    """One line as it is sent.

    Args:
        messages: without faults.
        parts: whether every content becomes a list of parts.
    """
    sent = [{**message, "content": _content(message["content"], parts=parts)} for message in messages]
    line = orjson.dumps({"messages": sent}, option=orjson.OPT_APPEND_NEWLINE)
    for separator, escape in SEPARATORS:
        if separator in line:
            line = line.replace(separator, escape)
    return line


def fault_in(messages: Sequence[Message], rules: Rules) -> str:
    """Why these messages cannot teach; empty if they can. Pictures are counted, not looked into."""
    if not messages:
        return "no messages"
    turns = messages[1:] if messages[0].get("role") == "system" else messages
    for at, message in enumerate(turns):
        wanted = "assistant" if at % 2 else "user"
        if message.get("role") != wanted:
            return f"roles must be system (or none), then user and assistant in turn: {_roles(messages)}"
    if not turns or messages[-1].get("role") != "assistant":
        return "the last message must be the answer of the assistant; build writes it unless it is told --no-labels"
    for message in messages:
        fault = _message_fault(message, rules)
        if fault:
            return fault
    count = sum(len(pictures_of(message["content"])) for message in messages)
    if count > rules.pictures:
        return f"{count} pictures, and at most {rules.pictures} are taken: build with --max-frames"
    return ""


def identity_of(path: Path, *, flag: str) -> tuple[int, ...]:
    """What changes when a file does.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{flag} {path} is no file; it is read twice, so it cannot be a pipe either")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _message_fault(message: Message, rules: Rules) -> str:
    role, content = message["role"], message.get("content")
    unknown = sorted(set(message) - MESSAGE_KEYS)
    if unknown:
        return f'the message of the {role} has a key "{unknown[0]}"'
    if "weight" in message and (role != "assistant" or type(message["weight"]) is not int or message["weight"] >> 1):
        return f'"weight" must be 0 or 1, and of the assistant; {role} has {message["weight"]!r}'
    if isinstance(content, list):
        fault = next(filter(None, (_part_fault(part, role, rules) for part in content)), "")
        if fault:
            return fault
    elif not isinstance(content, str):
        return f"the content of the {role} is neither a text nor a list of parts"
    if not text_of(content).strip() and not pictures_of(content):
        return f"the message of the {role} is empty"
    return ""


def _part_fault(part: object, role: str, rules: Rules) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in {"text", "image_url"}:
        return f"a part of the {role} is neither text nor image_url"
    if kind == "text":
        return "" if isinstance(part.get("text"), str) else f"a text part of the {role} holds no text"
    if role != "user":
        return f"pictures may stand in messages of the user only, not of the {role}"
    urls = pictures_of([part])
    return _address_fault(urls[0], rules) if urls else "an image_url part holds no address"


def _address_fault(url: str, rules: Rules) -> str:
    if url.startswith(SCHEME):
        return f"{url[:80]} is a reference, which no provider can follow: build without --image-refs"
    kind = next((kind for kind in PICTURE_TYPES if url.startswith(kind)), None)
    if kind is None:
        return f"pictures must stand in the file as data:image/jpeg (png, webp);base64, not as {url[:40]}"
    size = (len(url) - len(kind)) * 3 // 4
    if size > rules.picture_bytes:
        return f"a picture of {size:,} bytes, and at most {rules.picture_bytes:,} are taken; build with --fit"
    return ""


def _take(facts: Facts, chat: Chat, *, model: str) -> str:
    """Count one example without faults; what is wrong with its pictures, if anything."""
    contents = [message["content"] for message in chat.messages]
    pictures = [url for content in contents for url in pictures_of(content)]
    for at, url in enumerate(pictures, 1):
        fault = _count_picture(facts, url, model=model)
        if fault:
            return f"picture {at} {fault}"
    facts.examples += 1
    facts.pictured += bool(pictures)
    facts.pictures += len(pictures)
    facts.text_bytes += sum(len(text_of(content).encode()) for content in contents)
    facts.parts = facts.parts or any(isinstance(content, list) for content in contents)
    facts.strings += sum(isinstance(content, str) for content in contents)
    facts.line_bytes += len(line_of(chat.messages, parts=False))
    facts.dropped.update(key for key in chat.keys if key != "messages")
    return ""


def _count_picture(facts: Facts, url: str, *, model: str) -> str:
    try:
        data = pybase64.b64decode(url.partition(",")[2], validate=True)
    except ValueError:
        return "is no base64"
    size = size_of(data)
    if size is None:
        return "is none: its bytes are no JPEG, PNG or WebP"
    tokens = image_tokens(model, *size)
    facts.picture_tokens += tokens or 0
    facts.uncounted += tokens is None
    return ""


def _check_numbers(facts: Facts, *, rules: Rules, teaches: bool) -> None:
    least = rules.examples if teaches else 1
    if facts.examples < least:
        raise InputError(
            f"{facts.path} holds {facts.examples} examples, and at least {least} are needed ({rules.source})"
        )
    if rules.pictured is not None and facts.pictured > rules.pictured:
        raise InputError(
            f"{facts.path} holds {facts.pictured:,} examples with pictures, and at most {rules.pictured:,} are taken "
            f"({rules.source})"
        )


def _content(content: Any, *, parts: bool) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if parts else content
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the address of a picture where all providers look for it."""
    return {**part, "image_url": {"url": part["image_url"]}} if isinstance(part.get("image_url"), str) else part


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(str(message.get("role"))[:20] for message in messages[:6])
