"""What is to be generated, settled once: NeMo's file, then words, then flags, then the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from encoders.asking import Asking
from encoders.sample import ALL_FRAMES
from engine.config import LOOPBACK
from engine.errors import ConfigError, FolderInUse
from engine.readers import JSON_SUFFIXES
from labels.generate.config_file import settings_of
from labels.generate.flags import GenerateFlags
from labels.generate.prompts import LISTS, as_lines, check_file
from sinks.folder import ANSWERS, MANIFEST

RUN = ".run"
"""What the name of the run folder has behind that of the file."""
MANY_FRAMES = 16
"""Of a video whose frames are all wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 0.2
    top_k: int = 0
    """0 is all."""
    top_p: float = 0.9
    greedy: bool = False
    repetition_penalty: float = 1.2
    """1 is none."""
    tokens_to_generate: int = 256
    min_tokens_to_generate: int = 0
    end_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise ConfigError(
                "--temperature and --top-k must not be negative, --repetition-penalty must be above 0, and --top-p "
                "above 0 and at most 1"
            )
        if self.tokens_to_generate < 1 or not 0 <= self.min_tokens_to_generate <= self.tokens_to_generate:
            raise ConfigError("--tokens-to-generate must be at least 1, and --min-tokens-to-generate at most as much")

    def extras(self) -> dict[str, object]:
        """Fields of a body that vLLM takes and many providers refuse."""
        found: dict[str, object] = {}
        if self.top_k and not self.greedy:
            found["top_k"] = self.top_k
        if self.repetition_penalty != 1:
            found["repetition_penalty"] = self.repetition_penalty
        if self.min_tokens_to_generate:
            found["min_tokens"] = self.min_tokens_to_generate
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be generated."""

    flags: GenerateFlags
    """As typed, for all that concerns the run and not the answers."""
    prompts: Path
    """One prompt a line."""
    output: Path
    media: str
    num_frames: int
    splice: Literal["first", "middle", "last"] | None
    asking: Asking
    sampling: Sampling
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return run_folder(self.output)

    @property
    def lines(self) -> Path:
        """Where the answers stand a line each."""
        return self.folder / ANSWERS if self.is_list else self.output

    @property
    def is_list(self) -> bool:
        return self.output.suffix.lower() in LISTS

    @property
    def max_frames(self) -> int:
        return self.flags.max_frames or (MANY_FRAMES if self.num_frames == ALL_FRAMES else self.num_frames)


def run_folder(output: Path) -> Path:
    """Where the run behind a file of answers is kept."""
    return output.with_name(output.name + RUN)


def order_of(flags: GenerateFlags, words: Sequence[str]) -> Order:
    """What these flags, the file they name and the words ask for.

    Raises:
        ConfigError: a flag, a key, or a file they name is wrong.
        InputError: the prompts are none.
        FolderInUse: something stands at --output-file that no run of ours has made, or a run without --resume.
    """
    settings = settings_of(flags.config_file, words)
    told = dict(settings.values) | {
        field.name: value for field in fields(flags) if (value := getattr(flags, field.name)) is not None
    }
    told = {name: value for name, value in told.items() if value is not None}
    prompts = Path(_needed(told, "prompt_file"))
    output = Path(_needed(told, "output_file"))
    media = str(_needed(told, "media_base_path"))
    check_file(prompts)
    _check_output(output, resume=flags.resume)
    sampling = Sampling(**{field.name: told[field.name] for field in fields(Sampling) if field.name in told})
    return Order(
        flags=flags,
        prompts=as_lines(prompts, run_folder(output)),
        output=output,
        media=media,
        num_frames=told.get("num_frames", 8),
        splice=told.get("splice_single_frame"),
        asking=Asking(media_type=told.get("media_type", "video"), insert=told.get("insert_media_token")),
        sampling=sampling,
        notes=settings.note(),
    )


def body_of(order: Order, urls: Sequence[str]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Further fields of a body besides temperature, top_p and seed; and what its user should know.

    Args:
        order: what is to be generated.
        urls: the addresses that are asked.
    """
    sampling = order.sampling
    body: dict[str, object] = {"stop": list(sampling.end_strings)} if sampling.end_strings else {}
    extras = sampling.extras()
    kind = order.flags.server_params
    local = all(urlsplit(url).hostname in LOOPBACK for url in urls)
    if kind == "vllm" or (kind == "auto" and local):
        return body | extras, ()
    if not extras:
        return body, ()
    why = "--server-params openai" if kind == "openai" else "not every provider takes them; --server-params vllm does"
    return body, (f"Not sent: {', '.join(extras)} ({why})",)


def _needed(told: Mapping[str, Any], name: str) -> Any:
    if name not in told:
        raise ConfigError(f"--{name.replace('_', '-')} is missing")
    return told[name]


def _check_output(output: Path, *, resume: bool) -> None:
    folder = run_folder(output)
    if output.suffix.lower() not in {*JSON_SUFFIXES, *LISTS}:
        raise ConfigError(f"--output-file {output}: unknown kind of file; take .jsonl or .json")
    if output.is_dir():
        raise ConfigError(f"--output-file {output} is a folder; name a file, such as {output / 'answers.jsonl'}")
    is_run = (folder / MANIFEST).exists()
    if output.exists() and not is_run:
        raise FolderInUse(
            f"{output} is there already, and {folder}, which would hold its run, is not; nothing was changed. "
            "Move it away, or take another --output-file"
        )
    if is_run and not resume:
        raise FolderInUse(f"{folder} holds a run already; go on with it by --resume, or take another --output-file")
