"""`infer`: a file of chats to raw answers. A run like any other, but for its source, its encoder and its one file.

All that the two have in common goes through the flags of `run`: addresses, keys, prices, limits, brakes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from encoders.chat import ChatEncoder, recipe_of
from encoders.messages import MessagesEncoder
from engine.config import FormatConfig
from engine.errors import ConfigError, FolderInUse, InputError
from engine.readers import JSON_SUFFIXES, open_table
from engine.source import SourceConfig
from engine.types import Answer
from labels.codebook import Codebook, load_codebook
from labels.flags import OF_RUNS, RunFlags, handed_on
from labels.infer.flags import InferFlags
from labels.infer.watch import Sight
from labels.quality import NONE as NO_GOLD
from labels.told import Told, job_of
from sinks.folder import MANIFEST

RUN = ".run"
"""What the name of the run folder has behind that of the file."""
SHARDS = 1
"""So that `tail` shows all that comes; a disk syncs one file as fast as many."""
MAX_LINE_BYTES = 64 << 20
"""Sixteen frames in base64, as large as providers take them; more is no chat."""
MAX_OPEN_MB = 256
"""A chat is held twice, as it came and as it is sent."""
UNFINISHED = ("{", "[", ":", ",")
"""How an answer ends that was cut off between two things."""
_MARK = re.compile(r'[{}"]')
_STRING_REST = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)


def run_folder(out: Path) -> Path:
    """Where the run behind a raw file is kept."""
    return out.with_name(out.name + RUN)


def infer_job(flags: InferFlags) -> Told:
    """The job these flags ask for.

    Raises:
        ConfigError: a flag, or a file it names, is wrong, or --skip leaves no chat.
        InputError: the file has no chat.
        FolderInUse: something stands at --out that no run of ours has made.
    """
    _check(flags)
    told = job_of(_as_run(flags))
    book = None if flags.codebook is None else load_codebook(flags.codebook)
    form = _form(flags)
    encoder = replace(told.job.encoder, system_prompt="")
    formats = formats_of(book) if book is not None and form == "json_schema" else {}

    def worker(chat: ChatEncoder) -> MessagesEncoder:
        return MessagesEncoder(chat=chat, attach=flags.include_images, enforcer=flags.append_enforcer, formats=formats)

    settings = replace(
        told.job.settings,
        source=SourceConfig(
            path=flags.val_file,
            whole_lines=True,
            max_line_bytes=MAX_LINE_BYTES,
            skip=flags.skip,
            limit=flags.limit,
        ),
        retry=replace(told.job.settings.retry, first_wait_s=flags.base_sleep),
        format=FormatConfig(value={"type": "json_object"} if form == "json_object" else None),
        recipe=_recipe(flags, encoder, book, form=form),
    )
    job = replace(
        told.job,
        settings=settings,
        encoder=encoder,
        reader=RawReader(),
        observer=Sight(),
        worker=worker,
        raw=flags.out,
        warmup=flags.warmup,
    )
    return Told(job=job, notes=told.notes)


def formats_of(book: Codebook) -> dict[str, Mapping[str, object]]:
    """The form of an answer to each group of a codebook, by the id of the group, and under "" that to all of it.

    Raises:
        ConfigError: two modes have groups of one id that ask different things, and no chat says which is meant.
    """
    asked: dict[str, frozenset[str]] = {}
    formats: dict[str, Mapping[str, object]] = {"": book.response_format()}
    for mode, groups in book.groups.items():
        for group, keys in groups.items():
            if asked.setdefault(group, frozenset(keys)) != frozenset(keys):
                raise ConfigError(
                    f"--codebook {book.name}: more than one mode has a group {group!r}; take --no-response-format"
                )
            formats[group] = book.response_format((mode, group))
    return formats


@dataclass(frozen=True, slots=True)
class RawReader:
    """Answers are kept as text; all that is asked of one is whether it breaks off."""

    def read(self, text: str) -> Answer:
        return Answer(labels=None, cut=breaks_off(text))

    def repair(self, text: str) -> bytes | None:
        """None: what the model wrote is what is wanted."""
        del text
        return None


def breaks_off(text: str) -> bool:
    """Whether an answer stops in the middle: nothing at all, an open object, or an end after which more must come.

    Braces inside the strings of an object do not count.
    """
    stripped = text.strip()
    if not stripped or stripped.endswith(UNFINISHED):
        return True
    depth = at = 0
    while mark := _MARK.search(stripped, at):
        at = mark.end()
        if mark[0] != '"':
            depth = depth + 1 if mark[0] == "{" else max(0, depth - 1)
        elif depth:
            rest = _STRING_REST.match(stripped, at)
            if rest is None:
                return True
            at = rest.end()
    return depth > 0


def _check(flags: InferFlags) -> None:
    """Refuse what is wrong in the flags that `run` does not have."""
    if flags.include_images and flags.frames_dir is None:
        raise ConfigError("--include-images needs --frames-dir: the place that holds a folder of frames per video")
    if not 0 <= flags.base_sleep < math.inf:
        raise ConfigError(f"--base-sleep must be 0 or more seconds, not {flags.base_sleep}")
    if flags.warmup < 0:
        raise ConfigError(f"--warmup must be 0 or more calls, not {flags.warmup}")
    if flags.no_response_format and flags.response_format not in {None, "none"}:
        raise ConfigError(f"--no-response-format forbids --response-format {flags.response_format}: leave one out")
    if flags.response_format == "json_schema" and flags.codebook is None:
        raise ConfigError("--response-format json_schema needs --codebook, which the schema is made of")
    _check_chats(flags.val_file, skip=flags.skip)
    _check_out(flags.out)


def _check_chats(path: Path, *, skip: int) -> None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".gz"], [".zst"]):
        suffixes.pop()
    if suffixes[-1:] not in [[suffix] for suffix in JSON_SUFFIXES]:
        raise ConfigError(f"--val-file {path}: unknown kind of file; take .jsonl, also .jsonl.gz or .jsonl.zst")
    if skip < 0:
        raise ConfigError("--skip must not be negative")
    try:
        if not path.is_file():
            raise ConfigError(f"--val-file {path}: {'not a file' if path.exists() else 'no such file'}")
        with open_table(path, whole_lines=True, max_line_bytes=MAX_LINE_BYTES) as table:
            found = sum(1 for _ in islice(table.records(()), skip + 1))
    except OSError as error:
        raise ConfigError(f"--val-file {path}: {error.strerror}") from error
    if not found:
        raise InputError(f"{path} holds no chat; it needs one JSON object a line")
    if found <= skip:
        raise ConfigError(f"--skip {skip} leaves nothing: {path} holds {found:,} chats")


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; name a file, such as {out / 'preds.raw.jsonl'}")
    if out.exists() and not (run_folder(out) / MANIFEST).exists():
        raise FolderInUse(
            f"{out} is there already, and {run_folder(out)}, which would hold its run, is not; "
            "nothing was changed. Move it away, or take another --out"
        )


def _as_run(flags: InferFlags) -> RunFlags:
    """The same as told to `run`, as far as the two are alike."""
    return RunFlags(
        **handed_on(flags, OF_RUNS),
        input=flags.val_file,
        out=run_folder(flags.out),
        gold=(NO_GOLD,),
        frames_dir=flags.frames_dir,
        max_frames=flags.max_frames,
        temperature=flags.temperature,
        effort=flags.effort,
        response_format="none",
        max_open_mb=MAX_OPEN_MB,
        max_tokens=flags.max_tokens,
        retry_on_trunc=flags.retry_on_trunc,
        growth=flags.growth,
        max_tokens_cap=flags.max_tokens_cap,
        shards=SHARDS,
        retry_failed=flags.resume,
    )


def _form(flags: InferFlags) -> str:
    """How the answer's form is asked for."""
    if flags.no_response_format:
        return "none"
    return flags.response_format or ("none" if flags.codebook is None else "json_schema")


def _recipe(flags: InferFlags, encoder: ChatEncoder, book: Codebook | None, *, form: str) -> dict[str, object]:
    """What of the flags decides the bytes of a request."""
    return {
        **recipe_of(encoder),
        "chats": {"include_images": flags.include_images, "append_enforcer": flags.append_enforcer},
        "response_format": form,
        "codebook": book and book.name,
        "codebook_digest": book and book.digest,
    }
