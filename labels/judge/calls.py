"""The calls to judges, made by the engine: every batch is a file of chats and a run of `infer` over it.

`OUTPUT.run/` holds them: `0001/batch.json`, `0001/prompts.jsonl`, and `0001/calls`, a run folder like any other.
A chat's id names the question, the order, the sample and a digest of everything that decides the answer. So whatever
was ever answered is found again by what was asked, a batch that was killed included, and nothing is paid for twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from engine.errors import BudgetSpent, RunError, SinkBroken
from engine.signals import Signals
from labels.infer.flags import InferFlags
from labels.infer.job import infer_job
from labels.job import Job, run_job
from labels.judge.plan import Ask, Sampling
from labels.judge.reviews import Heard, line_of
from labels.new_file import new_file
from labels.told import Told
from sinks.files import OS_FILES, reading_lines
from sinks.folder import FAILURES, MANIFEST, RESULTS, FolderLock, shard_name
from sinks.summary import said_by, summarise

CALLS, PROMPTS, BATCH = "calls", "prompts.jsonl", "batch.json"
FRAMES = "frames"
NEXT_SEED = 1000
"""Added to the seed for every answer without scores: the same seed would bring the same words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How asking ended."""

    stopped_by: str | None = None
    """A signal, or whatever else ended it early without an error."""
    trouble: RunError | None = None
    """What ended it; all that was answered before is kept."""


class Asker(Protocol):
    """Asks judges, and remembers what they said."""

    def heard(self) -> Mapping[str, Sequence[Heard]]:
        """All that ever came back, by the names of the asks, oldest first."""
        ...

    def ask(self, asks: Sequence[tuple[Ask, int]]) -> Ended:
        """Ask them; each with how often it has been answered without scores."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What calls are made with."""

    flags: InferFlags
    """How, but for whom and what."""
    sampling: Sampling
    say: Callable[[str], None]
    signals: Signals | None = None


class Calls:
    """An asker on the engine. A context manager: one process at a time has the folder.

    Args:
        folder: holds the batches; made if missing.
        hands: what calls are made with.

    Raises:
        FolderInUse: another process has it, or it cannot be made.
    """

    def __init__(self, folder: Path, hands: Hands) -> None:
        self._folder = folder
        self._hands = hands
        self._lock = FolderLock(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def frames(self) -> Path:
        """Where pictures lie that chats name."""
        return self._folder / FRAMES

    def heard(self) -> Mapping[str, Sequence[Heard]]:
        found: dict[str, list[Heard]] = {}
        for batch in batches_in(self._folder):
            for name, heard in _answers(batch / CALLS).items():
                found.setdefault(name, []).append(heard)
        return found

    def ask(self, asks: Sequence[tuple[Ask, int]]) -> Ended:
        """Ask them, a batch for each judge and seed, one after the other.

        Raises:
            ConfigError: a flag is wrong; nothing was sent.
        """
        groups: dict[tuple[str, int], list[Ask]] = {}
        for ask, tries in asks:
            groups.setdefault((ask.judge_model, ask.sample + NEXT_SEED * tries), []).append(ask)
        # All of them before the first call: a flag that is wrong for the last judge is wrong now.
        jobs = [self._job(judge, shift, group) for (judge, shift), group in groups.items()]
        for note in dict.fromkeys(note for told in jobs for note in told.notes):
            self._hands.say(note)
        for ((judge, _), group), told in zip(groups.items(), jobs, strict=True):
            self._hands.say(f"{judge}: {len(group):,} reviews")
            try:
                job = self._within_budget(told.job)
                last = run_job(job, say=self._hands.say, signals=self._hands.signals)
            except RunError as error:
                return Ended(trouble=error)
            if last.stopping is not None:
                return Ended(stopped_by=last.stopping)
        return Ended()

    def spent_usd(self) -> float:
        """What all batches have cost, calls whose cost is unknown at their worst."""
        spent = 0.0
        for batch in batches_in(self._folder):
            said = summarise(batch / CALLS).spent or {}
            spent += said.get("cost_usd") or 0.0
            spent += said.get("unknown_usd") or 0.0
        return spent

    def _job(self, judge: str, shift: int, group: Sequence[Ask]) -> Told:
        """The run of one batch, its chats written."""
        how = self._hands.sampling
        extra: dict[str, Any] = {"temperature": how.temperature}
        extra |= {} if how.top_p is None else {"top_p": how.top_p}
        extra |= {} if how.seed is None else {"seed": how.seed + shift}
        batch = self._new_batch({"judge_model": judge, "body": extra}, group)
        try:
            told = infer_job(self._flags(judge, batch, framed=any(ask.frames for ask in group)))
        except BaseException:
            shutil.rmtree(batch, ignore_errors=True)
            raise
        job = told.job
        settings = replace(job.settings, recipe={**job.settings.recipe, "body": extra})
        encoder = replace(job.encoder, extra=tuple(extra.items()))
        return replace(told, job=replace(job, out=batch / CALLS, raw=None, encoder=encoder, settings=settings))

    def _flags(self, judge: str, batch: Path, *, framed: bool) -> InferFlags:
        flags = self._hands.flags
        return replace(
            flags,
            val_file=batch / PROMPTS,
            out=batch / CALLS,
            model=judge,
            endpoint=endpoints_of(judge, flags.endpoint),
            frames_dir=str(self.frames) if framed else None,
        )

    def _new_batch(self, about: Mapping[str, Any], group: Sequence[Ask]) -> Path:
        numbers = [int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdecimal()]
        batch = self._folder / f"{max(numbers, default=0) + 1:04d}"
        with new_file(batch / BATCH) as put:
            put(orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        with new_file(batch / PROMPTS) as put:
            for ask in group:
                put(line_of(ask.chat()))
        return batch

    def _within_budget(self, job: Job) -> Job:
        """The job, with what earlier batches have left of `--max-cost`."""
        most = job.settings.brake.max_cost_usd
        if most is None:
            return job
        left = most - self.spent_usd()
        if left <= 0:
            raise BudgetSpent(f"all that --max-cost allows, ${most:g}, is spent. Raise it to go on")
        brake = replace(job.settings.brake, max_cost_usd=left)
        return replace(job, settings=replace(job.settings, brake=brake))


def batches_in(folder: Path) -> Iterator[Path]:
    """The batches that have a run, oldest first."""
    for path in sorted(folder.glob("[0-9]*"), key=lambda path: (len(path.name), path.name)):
        if (path / CALLS / MANIFEST).exists():
            yield path


def has_calls(folder: Path) -> bool:
    """Whether anything was ever asked."""
    return next(batches_in(folder), None) is not None


def endpoints_of(judge: str, endpoints: Sequence[str]) -> tuple[str, ...]:
    """The addresses of a judge: those that name it, and those that name no model."""
    return tuple(text for text in endpoints if model_of(text) in {None, judge})


def model_of(endpoint: str) -> str | None:
    """The model that an `--endpoint` names."""
    parts = (part.strip() for part in endpoint.split(",")[1:])
    return next((part.removeprefix("model=") for part in parts if part.startswith("model=")), None)


def _answers(calls: Path) -> dict[str, Heard]:
    """What came back in one run, by the ids of its chats: results, and the last failure of what has none."""
    found = {said["meta_id"]: _failed(said) for said in _lines(calls, FAILURES)}
    return found | {said["meta_id"]: _answered(said) for said in _lines(calls, RESULTS)}


def _lines(calls: Path, folder: str) -> Iterator[Mapping[str, Any]]:
    """Every whole line, past the last commit too: it was paid for, and a run that goes on would keep it."""
    path = calls / shard_name(folder, 0)
    with suppress(FileNotFoundError):
        try:
            with reading_lines(OS_FILES, path, path.stat().st_size) as lines:
                for line in lines:
                    said = said_by(line, failed=folder == FAILURES)
                    if said is not None:
                        yield said
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SinkBroken(f"{path} cannot be read: {error.strerror}") from error


def _answered(said: Mapping[str, Any]) -> Heard:
    return Heard(
        text=said["raw"] or "",
        usage=said["usage"],
        cost_usd=said["cost_usd"],
        request_id=said["request_id"],
    )


def _failed(said: Mapping[str, Any]) -> Heard:
    return Heard(text=None, error_kind=said["kind"], error=said["message"], usage=said["usage"])
