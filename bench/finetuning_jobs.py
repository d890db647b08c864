"""What the simulated fine-tuning provider keeps: files it has looked through, and jobs that go on by the clock."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedRandom
from typing import Any, BinaryIO, Literal, cast

import orjson

from engine.errors import ConfigError

MOST_PICTURES = 10
LEAST_EXAMPLES = {"openai": 10, "together": 1}
FIELDS: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"model", "training_file", "validation_file", "suffix", "seed", "metadata", "method"}),
    "together": frozenset(
        {
            "model",
            "training_file",
            "validation_file",
            "suffix",
            "n_epochs",
            "n_evals",
            "n_checkpoints",
            "batch_size",
            "learning_rate",
            "warmup_ratio",
            "training_type",
            "training_method",
        }
    ),
}
"""What a job may be told; anything else is refused."""


class RefusedError(Exception):
    """An answer of status 400; `str()` is its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Something that goes wrong with the first calls to one address."""

    call: str
    """As in `POST /v1/files`."""
    kind: Literal["status", "cut", "reset"] = "status"
    """A refusal; or all is done and the connection ends without an answer; or it ends with nothing done."""
    times: int = 1
    after: int = 0
    """So many calls, counted from when the scenario took effect, are spared."""
    status: int = 500
    retry_after_s: float | None = None
    message: str = "something went wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the provider behaves; may be replaced while it runs, also for jobs that are there."""

    api: Literal["openai", "together"] = "openai"
    key: str = ""
    """The one key that is accepted; empty accepts any, and none."""
    file_s: float = 0.0
    """Until a file has been looked through."""
    queue_s: float = 0.2
    run_s: float = 0.3
    steps: int = 3
    """Events of a job while it runs."""
    ends: Literal["succeeded", "failed", "cancelled"] = "succeeded"
    error: str = "the loss is not a number"
    blows: tuple[Blow, ...] = ()


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """One upload."""

    id: str
    name: str
    size: int
    sha256: str
    examples: int
    at_s: float


@dataclass(slots=True, kw_only=True)
class StoredJob:
    """One job."""

    id: str
    told: Mapping[str, Any]
    at_s: float
    cancelled_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Store:
    """Files and jobs."""

    scenario: Scenario
    files: dict[str, StoredFile] = field(default_factory=dict)
    jobs: dict[str, StoredJob] = field(default_factory=dict)

    def keep_file(self, file: BinaryIO, name: str) -> dict[str, Any]:
        """Take an upload that stands the strict look.

        Raises:
            RefusedError: it does not.
        """
        if not name.endswith(".jsonl"):
            raise RefusedError(f"{name}: only .jsonl is taken")
        file.seek(0)
        examples = look_through(file)
        file.seek(0)
        digest = hashlib.file_digest(cast("BufferedRandom", file), "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        stored = StoredFile(
            id=f"file-{len(self.files) + 1}", name=name, size=size, sha256=digest, examples=examples, at_s=time.time()
        )
        self.files[stored.id] = stored
        return self.file(stored.id)

    def file(self, file_id: str) -> dict[str, Any]:
        """A file as the API tells of it; KeyError if there is none."""
        stored = self.files[file_id]
        done = time.time() >= stored.at_s + self.scenario.file_s
        said = {"id": stored.id, "object": "file", "bytes": stored.size, "filename": stored.name}
        said |= {"purpose": "fine-tune", "created_at": int(stored.at_s)}
        if self.scenario.api == "openai":
            return said | {"status": "processed" if done else "uploaded", "status_details": None}
        return said | {"Processed": done, "FileType": "jsonl", "LineCount": stored.examples}

    def create(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Create a job.

        Raises:
            RefusedError: it may not be told so.
        """
        check_job(told, self.scenario.api)
        for name in ("training_file", "validation_file"):
            if name in told and told[name] not in self.files:
                raise RefusedError(f"{name} {told[name]} does not exist")
        examples, least = self.files[told["training_file"]].examples, LEAST_EXAMPLES[self.scenario.api]
        if examples < least:
            raise RefusedError(f"Training file has {examples} example(s), but must have at least {least} examples")
        job = StoredJob(id=f"ft-job-{len(self.jobs) + 1}", told=dict(told), at_s=time.time())
        self.jobs[job.id] = job
        return self.job(job.id)

    def cancel(self, job_id: str) -> dict[str, Any]:
        self.jobs[job_id].cancelled_s = time.time()
        return self.job(job_id)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as the API tells of it; KeyError if there is none."""
        job, openai = self.jobs[job_id], self.scenario.api == "openai"
        status = self._status(job)
        model = f"ft:{job.told['model']}:{job.told.get('suffix', '')}:{job.id}"
        said = {"id": job.id, "status": status if openai else _TOGETHER[status], **job.told}
        if openai:
            error = {"code": "failed", "message": self.scenario.error, "param": None} if status == "failed" else None
            said |= {"object": "fine_tuning.job", "created_at": int(job.at_s), "error": error}
            said |= {"user_provided_suffix": said.pop("suffix", None)}
            return said | {"fine_tuned_model": model if status == "succeeded" else None}
        # The name is there from the beginning, whatever becomes of the job.
        return said | {"created_at": _iso(job.at_s), "model_output_name": model, "events": []}

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events so far, the oldest first."""
        job, scenario = self.jobs[job_id], self.scenario
        status = self._status(job)
        happened = [(0.0, "Created fine-tuning job")]
        happened += [
            (scenario.queue_s + scenario.run_s * step / scenario.steps, f"Step {step + 1}/{scenario.steps}: loss=0.5")
            for step in range(scenario.steps)
        ]
        until_s = (job.cancelled_s or time.time()) - job.at_s
        told = [(at_s, words) for at_s, words in happened if at_s <= until_s]
        if status in _ENDED:
            told.append((until_s if job.cancelled_s else scenario.queue_s + scenario.run_s, f"The job has {status}"))
        return [self._event(job, at, job.at_s + at_s, words) for at, (at_s, words) in enumerate(told)]

    def _event(self, job: StoredJob, at: int, at_s: float, words: str) -> dict[str, Any]:
        said: dict[str, Any] = {"message": words}
        if self.scenario.api == "openai":
            said |= {"object": "fine_tuning.job.event", "id": f"{job.id}-{at}", "level": "info", "type": "message"}
            return said | {"created_at": int(at_s)}
        return said | {"object": "fine-tune-event", "level": None, "type": "training", "created_at": _iso(at_s)}

    def _status(self, job: StoredJob) -> str:
        scenario = self.scenario
        if job.cancelled_s is not None:
            return "cancelled"
        since_s = time.time() - job.at_s
        if since_s < scenario.queue_s:
            return "queued"
        return "running" if since_s < scenario.queue_s + scenario.run_s else scenario.ends


_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_TOGETHER = {
    "queued": "queued",
    "running": "running",
    "succeeded": "completed",
    "failed": "error",
    "cancelled": "cancelled",
}


def look_through(lines: Iterable[bytes]) -> int:
    """How many examples a file holds.

    Raises:
        RefusedError: a line is none, or has another form than those before it.
    """
    forms: set[type] = set()
    count = 0
    for count, line in enumerate(lines, 1):
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise RefusedError(f"line {count} is no JSON") from None
        if not isinstance(said, dict) or set(said) != {"messages"}:
            raise RefusedError(f'line {count}: expected the one key "messages", found {sorted(said)}')
        forms |= _forms(said["messages"], count)
        if len(forms) > 1:
            raise RefusedError(f"line {count}: contents are texts in some places and lists in others")
    if not count:
        raise RefusedError("the file is empty")
    return count


def _forms(messages: Any, line: int) -> set[type]:
    roles = [message.get("role") for message in messages] if isinstance(messages, list) else []
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise RefusedError(f"line {line}: roles must alternate between user and assistant, not {roles}")
    pictures = 0
    for message in messages:
        content = message.get("content")
        if set(message) - {"role", "content", "weight"} or not content or type(content) not in {str, list}:
            raise RefusedError(f"line {line}: a message of the {message['role']} is malformed")
        for part in content if isinstance(content, list) else ():
            pictures += _is_picture(part, message["role"], line)
    if pictures > MOST_PICTURES:
        raise RefusedError(f"line {line}: {pictures} pictures, at most {MOST_PICTURES} are allowed")
    return {type(message["content"]) for message in messages}


def _is_picture(part: Any, role: str, line: int) -> bool:
    match part:
        case {"type": "text", "text": str()}:
            return False
        case {"type": "image_url", "image_url": {"url": str(url)}} if role == "user" and url.startswith("data:image/"):
            return True
    raise RefusedError(f"line {line}: a part of the {role} is malformed")


def check_job(told: Mapping[str, Any], api: str) -> None:
    """Refuse a job that the API would refuse.

    Raises:
        RefusedError: with the field.
    """
    unknown = sorted(set(told) - FIELDS[api])
    if unknown:
        raise RefusedError(f"unrecognized request argument supplied: {unknown[0]}")
    if not isinstance(told.get("model"), str) or not isinstance(told.get("training_file"), str):
        raise RefusedError("model and training_file are required")
    numbers = told
    if api == "openai" and "method" in told:
        match told["method"]:
            case {"type": "supervised", "supervised": {"hyperparameters": dict(numbers)}}:
                pass
            case _:
                raise RefusedError("method must be of type supervised, with hyperparameters")
    for name in ("n_epochs", "batch_size", "n_evals"):
        value = numbers.get(name, 1)
        if value not in {"auto", "max"} and (type(value) is not int or value < 0):
            raise RefusedError(f"{name} must be a whole number, not {value!r}")
    if api == "together" and told.get("n_evals") and "validation_file" not in told:
        raise RefusedError("n_evals needs a validation_file")


def scenario_from(said: Any) -> Scenario:
    """The scenario a JSON object tells of.

    Raises:
        ConfigError: it tells of none.
    """
    try:
        blows = tuple(Blow(**blow) for blow in said.get("blows", ()))
        return Scenario(**{**said, "blows": blows})
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"the scenario: {error}") from error


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
