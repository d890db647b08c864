"""Settings in the shape of NeMo's inference config: a YAML file, and `key=value` words as its scripts take them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

KEYS = {
    "prompt_file": "prompt_file",
    "output_file": "output_file",
    "inference.media_base_path": "media_base_path",
    "inference.media_type": "media_type",
    "inference.insert_media_token": "insert_media_token",
    "inference.temperature": "temperature",
    "inference.top_k": "top_k",
    "inference.top_p": "top_p",
    "inference.greedy": "greedy",
    "inference.repetition_penalty": "repetition_penalty",
    "inference.tokens_to_generate": "tokens_to_generate",
    "inference.min_tokens_to_generate": "min_tokens_to_generate",
    "inference.end_strings": "end_strings",
    "data.media_type": "media_type",
    "data.num_frames": "num_frames",
    "data.splice_single_frame": "splice_single_frame",
}
"""The flag that each key means."""
LOCAL = (
    *("inference.add_BOS", "inference.all_probs", "inference.compute_logprob", "inference.batch_size"),
    *("tensor_model_parallel_size", "pipeline_model_parallel_size", "pipeline_model_parallel_split_rank"),
    *("neva_model_file", "base_model_file", "checkpoint_dir", "checkpoint_name", "hparams_file", "cluster_type"),
    *("quality", "toxicity", "humor", "creativity", "violence", "helpfulness", "not_appropriate"),
    *("server", "port", "web_server", "web_port", "share", "username", "password"),
)
"""Keys that say how a model is loaded and served, which is the business of the server that is asked."""
LOCAL_SECTIONS = ("trainer.", "quantization.")
WHOLE = frozenset({"top_k", "tokens_to_generate", "min_tokens_to_generate", "num_frames"})
REAL = frozenset({"temperature", "top_p", "repetition_penalty"})
CHOICES = {
    "media_type": ("image", "video"),
    "insert_media_token": ("left", "right"),
    "splice_single_frame": ("first", "middle", "last"),
}
YAML_MISSING = "--config-file is YAML, which needs a further package: pip install 'reelbatch[yaml]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a file and words say."""

    values: Mapping[str, Any]
    """By the name of the flag, without dashes; None where the key is given as null."""
    passed_over: tuple[str, ...] = ()
    """Keys that mean nothing here."""

    def note(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.passed_over:
            return ()
        return (f"Left to the server that is asked: {', '.join(self.passed_over)}",)


def settings_of(path: Path | None, words: Sequence[str]) -> Settings:
    """What a config file and words after it say; a later word beats an earlier one, and the file.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is of the wrong kind.
    """
    said = {} if path is None else dict(_flat(_yaml(path)))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is neither a flag nor a setting such as inference.temperature=0.2")
        said[key.lstrip("+")] = _value(value)
    unknown = [key for key in said if key not in KEYS and not _is_local(key)]
    if unknown:
        raise ConfigError(f"unknown keys: {', '.join(sorted(unknown))}. Known are {', '.join(KEYS)}")
    return Settings(
        values={KEYS[key]: _checked(key, value) for key, value in said.items() if key in KEYS},
        passed_over=tuple(key for key in said if _is_local(key)),
    )


def _is_local(key: str) -> bool:
    return key in LOCAL or key.startswith(LOCAL_SECTIONS)


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        # An extra, which need not be there when types are checked either.
        yaml = import_module("yaml")
    except ImportError:
        raise ConfigError(YAML_MISSING) from None
    try:
        said = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--config-file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config-file {path} is no YAML: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"--config-file {path} holds no settings; it begins with keys such as inference:")
    return said


def _flat(said: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in said.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _value(text: str) -> Any:
    """A value as it is typed: null, a truth, a number, a list in brackets, or else a text."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("\"'") for part in text[1:-1].split(",") if part.strip()]
    words = {"null": None, "none": None, "~": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        number = json.loads(text)
    except ValueError:
        return text.strip("\"'")
    return number if type(number) in {int, float} else text.strip("\"'")


def _checked(key: str, value: Any) -> Any:
    """The value of a key, in the type of its flag."""
    name = KEYS[key]
    if value is None:
        return None
    if name in CHOICES and value not in CHOICES[name]:
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(CHOICES[name])}, null")
    if name == "greedy":
        fits = isinstance(value, bool)
    elif name == "end_strings":
        fits = isinstance(value, list) and all(isinstance(end, str) for end in value)
    elif name in WHOLE:
        fits = type(value) is int
    elif name in REAL:
        fits = type(value) in {int, float}
    else:
        fits = isinstance(value, str)
    if not fits:
        raise ConfigError(f"{key}: {value!r} is of the wrong kind for --{name.replace('_', '-')}")
    return tuple(value) if isinstance(value, list) else value
