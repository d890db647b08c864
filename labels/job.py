"""The labelling job: a run with a chat encoder and a reader of labels, shown while it lasts and reported at its end."""

from __future__ import annotations

import platform
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from encoders.chat import ChatEncoder
from engine.config import RunConfig, manifest_of
from engine.console import Panel, PlainLines
from engine.errors import ConfigError
from engine.inputs import SUMS, compare
from engine.life import OFFSETS, Life
from engine.marks import Marks
from engine.money import IN_FLIGHT, Books
from engine.ports import Answers, Encoder, Observer, Reader, Sink
from engine.report import EventsFile, write_report
from engine.run import Parts, Run
from engine.signals import Signals
from engine.source import describe_input
from engine.stats import Snapshot, Watcher
from labels.codebook import Codebook, load_codebook
from labels.earlier import earlier_answers
from labels.infer.warmup import warm_up
from labels.loop import on_loop
from labels.parts import open_clients, open_pool
from labels.probe_tokens import book, keep, probe_lane, stored_in, wanted, worst_cost_usd
from labels.reading import CodebookReader, TextReader
from labels.serve.server import LocalServer
from sinks.checkpoint import SPENT
from sinks.folder import INPUT, INPUT_BEFORE, MANIFEST, check_same_run, extension_of, read_manifest
from sinks.one_file import Form, RawFile, raw_record
from sinks.shards import ShardSink
from sinks.summary import read_checkpoint

REPORTED_LIBRARIES = ("aiohttp", "orjson", "pillow", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What is asked and how answers are read."""

    system_prompt: str
    reader: Reader
    codebook: Codebook | None
    recipe: dict[str, object]
    """What of the questions a resume must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One labelling job, as its user asked for it."""

    settings: RunConfig
    encoder: ChatEncoder
    reader: Reader
    out: Path
    shards: int
    resume: bool
    retry_failed: bool
    extend: bool = False
    """Whether rows added at the end of the input since the run began are taken in."""
    only: frozenset[str] | None = None
    """Kinds of failed or truncated rows that alone are worked on."""
    cache: Path | None = None
    """A folder of answers that runs share."""
    observer: Observer | None = None
    """Looks at the quality of the answers while they come."""
    probe_tokens: bool = False
    """Whether the server is asked what it counts for a picture even where a formula is known."""
    worker: Callable[[ChatEncoder], Encoder] | None = None
    """Makes of the encoder what the workers run in its place."""
    raw: Path | None = None
    """A file that has every ended row as a line of the raw record."""
    raw_form: Form = raw_record
    """What a line of that file says."""
    server: LocalServer | None = None
    """Runs beside the job, which cannot go on without it."""
    warmup: int = 0
    """Calls at most by which an address is waited for before any row is sent."""


def ask_by_codebook(name: str) -> Questions:
    """The questions of a shipped codebook or a TOML file.

    Raises:
        ConfigError: there is no such codebook, or it is wrong.
    """
    book = load_codebook(name)
    return Questions(
        system_prompt=book.system_prompt(),
        reader=CodebookReader(codebook=book),
        codebook=book,
        recipe={"codebook": book.name, "codebook_digest": book.digest, "schema_digest": book.schema_digest()},
    )


def ask_by_prompt(path: Path) -> Questions:
    """A prompt of the user's own; answers are kept as text.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--system-prompt {path}: {error}") from error
    return Questions(system_prompt=text, reader=TextReader(), codebook=None, recipe={"codebook": None})


def run_job(job: Job, *, say: Callable[[str], None], signals: Signals | None = None) -> Snapshot:
    """Do the job, or go on with it.

    Args:
        job: what to do.
        say: takes what the user should know, in sentences.
        signals: handed over once rows are about to be asked for; None has the run hear them itself.

    Returns:
        The last snapshot, taken after the last commit.

    Raises:
        ConfigError, RunError: as the parts say. Everything acknowledged is safe.
    """
    manifest = _manifest(job)
    with ShardSink.open(
        job.out,
        manifest=manifest,
        shards=job.shards,
        resume=job.resume,
        retry_failed=job.retry_failed,
        only=job.only,
    ) as sink:
        for note in sink.notes:
            say(note)
        if left := _left_in_flight(sink):
            say(
                f"The last life of this run did not close. {left:,} calls were in flight at its last commit; their "
                "cost counts as unknown. They, and what was asked after that commit, may be paid for twice."
            )
        if INPUT_BEFORE in manifest:
            sink.learnt.pop("rows_total", None)
        with (
            earlier_answers(sink, job.settings, out=job.out, cache=job.cache, say=say) as answers,
            _with_raw(job, sink, say=say) as kept,
        ):
            return on_loop(_life(job, kept, manifest[INPUT], answers=answers, say=say, signals=signals))


@contextmanager
def _with_raw(job: Job, sink: ShardSink, *, say: Callable[[str], None]) -> Iterator[Sink]:
    """The sink, and the raw file of the job if it has one."""
    if job.raw is None:
        yield sink
        return
    with RawFile(sink, job.out, job.raw, model=job.settings.models, form=job.raw_form) as kept:
        try:
            yield kept
        finally:
            if kept.trouble is not None:
                say(kept.trouble)


def _manifest(job: Job) -> dict[str, Any]:
    """What `run.json` shall say.

    Raises:
        ConfigError: the input cannot be read.
        ResumeMismatch: the folder holds a run with another input or other settings.
    """
    source = job.settings.source
    stored = read_manifest(job.out) if job.resume and (job.out / MANIFEST).exists() else None
    before = stored.get(INPUT) if stored else None
    before = before if isinstance(before, dict) else {}
    identity = describe_input(source, known=before)
    manifest = manifest_of(job.settings, input_identity=identity) | {"versions": _versions()}
    if stored is None:
        return manifest
    marks = Marks() if before.get(SUMS) == identity[SUMS] else Marks(read_checkpoint(job.out)[0].learnt.get(OFFSETS))
    found = compare(source.path, before, identity, marks=marks)
    if found.grown and job.extend:
        return manifest | extension_of(stored)
    check_same_run(job.out, stored, manifest, about_input=found.differences)
    return manifest


async def _life(
    job: Job,
    sink: Sink,
    identity: Mapping[str, Any],
    *,
    answers: Sequence[Answers],
    say: Callable[[str], None],
    signals: Signals | None,
) -> Snapshot:
    """One life of the run."""
    left = _left_in_flight(sink)
    job = await _measured(job, sink, say=say)
    if job.warmup:
        books = Books(job.settings.brake.max_cost_usd, sink.learnt.get(SPENT))
        try:
            await warm_up(job.settings.lanes, calls=job.warmup, books=books, say=say)
        finally:
            sink.learnt[SPENT] = books.as_json()
    with ExitStack() as shown:
        watchers: list[Watcher] = [shown.enter_context(EventsFile(job.out / "events.jsonl"))]
        if sys.stderr.isatty():
            title = f"{_models(job)} → {job.out}"
            watchers.append(shown.enter_context(Panel(sys.stderr, title=title)))
        else:
            watchers.append(PlainLines(sys.stderr))
        async with AsyncExitStack() as opened:
            life = await _begun(
                opened, job, sink, identity, answers=answers, say=say, signals=signals, watchers=watchers
            )
            try:
                return await life.main()
            finally:
                for note in life.notes:
                    say(note)
                # The report must not stand in the way of the error that a full disk ended the run with.
                with suppress(OSError):
                    write_report(
                        job.out / "report.json",
                        life.snapshot(),
                        about={"model": _models(job), "out": str(job.out), "left_in_flight": left}
                        | ({"processes": life.figures} if job.settings.processes > 1 else {}),
                    )


async def _begun(  # noqa: PLR0913 - the seams of a run
    opened: AsyncExitStack,
    job: Job,
    sink: Sink,
    identity: Mapping[str, Any],
    *,
    answers: Sequence[Answers],
    say: Callable[[str], None],
    signals: Signals | None,
    watchers: Sequence[Watcher],
) -> Life:
    """The run, in this process or in several, about to begin; what it needs is open as long as the stack is."""
    encoder, settings = job.encoder, job.settings
    worker = encoder if job.worker is None else job.worker(encoder)
    # Other encoders may send what an audit cannot read.
    audits = job.worker is None
    lost = None if job.server is None else job.server.ended
    if settings.processes > 1:
        # A fortieth of the start of a run, which one in a single process need not pay.
        from engine.crew import Crew, CrewParts  # noqa: PLC0415
        from labels.crew import PROGRAM, Kit  # noqa: PLC0415

        assert isinstance(sink, ShardSink)
        kit = Kit(
            encoder=encoder,
            worker=worker,
            reader=job.reader,
            audits=audits,
            done=sink.done_rows(),
            out=job.out,
            shards=sink.shards,
            cache=job.cache,
        )
        crew = CrewParts(
            program=PROGRAM,
            kit=kit,
            sink=sink,
            say=say,
            watchers=watchers,
            signals=signals,
            observer=job.observer,
            input_identity=identity,
            lost=lost,
        )
        return Crew(settings, crew)
    parts = Parts(
        pool=await open_pool(opened, settings, worker),
        clients=await open_clients(opened, settings, encoder, audits=audits, say=say),
        reader=job.reader,
        sink=sink,
        watchers=watchers,
        signals=signals,
        rng=random.Random(),
        answers=answers,
        observer=job.observer,
        input_identity=identity,
        lost=lost,
    )
    return Run(settings, parts)


def _left_in_flight(sink: Sink) -> int:
    """Calls that a life which did not close had in flight at its last commit."""
    return int((sink.learnt.get(SPENT) or {}).get(IN_FLIGHT, 0))


async def _measured(job: Job, sink: Sink, *, say: Callable[[str], None]) -> Job:
    """The job, with what its first server counts for a picture where that had to be asked, now or in an earlier life.

    Raises:
        SinkBroken: what was found cannot be kept.
    """
    lane, encoder = job.settings.lanes[0], job.encoder
    known, measured = stored_in(job.out, encoder.model)
    books = Books(job.settings.brake.max_cost_usd, sink.learnt.get(SPENT))
    if wanted(encoder, always=job.probe_tokens) and not known and books.reserve(worst_cost_usd(lane)):
        probe = await probe_lane(lane)
        book(probe, lane, books)
        sink.learnt[SPENT] = books.as_json()
        keep(job.out, probe)
        say(probe.note())
        measured = probe.measured
    return replace(job, encoder=replace(encoder, measured=measured))


def _models(job: Job) -> str:
    models = job.settings.models
    return models if isinstance(models, str) else ", ".join(models)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in REPORTED_LIBRARIES}
