"""The audit of a file of chats: every line checked, and what the labels, texts and frames are.

Lines stream through; what grows is one number for each id, and one for each combination of labels that occurs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import orjson

from engine.errors import ConfigError, InputError
from labels.build.faults import KNOWN_KEYS, Answers, chat_faults, data_url_bytes
from labels.build.report import Report
from labels.codebook import Codebook
from labels.messages import Chat, chat_of, pictures_of

LINE_BREAKS = {"carriage return": b"\r", "U+2028": "\u2028".encode(), "U+2029": "\u2029".encode()}
"""What some readers of lines break at."""


def audit(path: Path, codebook: Codebook | None = None) -> Report:
    """Look at every line of a file.

    Args:
        path: the file.
        codebook: the one its answers are to be right under; None takes the shipped one that they fit.

    Raises:
        ConfigError: there is no such file.
    """
    auditor = _Auditor(str(path), Answers(codebook))
    for number, line in _lines(path):
        auditor.take(number, line)
    return auditor.report


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise ConfigError(f"--check {path}: {error.strerror}") from error


class _Auditor:
    """Takes lines in their order."""

    def __init__(self, path: str, answers: Answers) -> None:
        self._path = path
        self._answers = answers
        self._ids: dict[int, int] = {}
        """A 64-bit digest of each id, and the line that had it first."""
        self.report = Report(path=path)

    def take(self, number: int, line: bytes) -> None:
        report = self.report
        report.file_bytes += len(line)
        for name, mark in LINE_BREAKS.items():
            report.line_breaks[name] += mark in line
        if not line.strip():
            report.blank += 1
            return
        report.lines += 1
        report.line_bytes.add(len(line))
        try:
            chat = chat_of(line, where=f"{self._path} line {number}", number=number, index=report.lines - 1)
        except InputError as error:
            report.fault(number, str(error).partition(": ")[2])
            return
        self._look(chat)

    def _look(self, chat: Chat) -> None:
        for fault in chat_faults(chat):
            self.report.fault(chat.line, fault)
        self.report.extra_keys.update(key for key in chat.keys if key not in KNOWN_KEYS)
        self._identify(chat)
        self._measure(chat)
        self._answer(chat)

    def _identify(self, chat: Chat) -> None:
        self.report.groups[chat.group_id or ""] += 1
        if chat.meta_id is None:
            self.report.without_id += 1
            return
        digest = int.from_bytes(hashlib.blake2b(chat.meta_id.encode("utf-8", "replace"), digest_size=8).digest())
        first = self._ids.setdefault(digest, chat.line)
        if first != chat.line:
            self.report.duplicates += 1
            self.report.fault(chat.line, f"the id {chat.meta_id!r} stands already in line {first}")

    def _measure(self, chat: Chat) -> None:
        report = self.report
        report.text_chars.add(len(chat.user_text))
        report.contents["list" if any(isinstance(said.get("content"), list) for said in chat.messages) else "text"] += 1
        urls = [url for message in chat.messages for url in pictures_of(message.get("content"))]
        report.frames.add(len(urls))
        for url in urls:
            kind = url.partition(";")[0] if url.startswith("data:") else url.partition(":")[0] + ":"
            report.pictures[kind[:40]] += 1
            if url.startswith("data:") and (size := data_url_bytes(url)) is not None:
                report.picture_bytes.add(size)

    def _answer(self, chat: Chat) -> None:
        if chat.answer is None:
            self.report.unanswered += 1
            return
        self.report.answered += 1
        try:
            said = orjson.loads(chat.answer)
        except orjson.JSONDecodeError:
            said = None
        answered = self._answers.read(chat, said)
        for fault in answered.faults:
            self.report.fault(chat.line, fault)
        if self._answers.codebook is not None:
            self.report.codebook = self._answers.codebook
            if answered.labels is not None:
                self.report.label(self._answers.codebook, answered.labels)
