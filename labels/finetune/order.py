"""What a fine-tuning job is told, and the fields it is told by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from engine.errors import ConfigError
from labels.finetune.api import OPENAI, Dialect

LEARNING_RATE, EVALUATIONS = 1e-4, 10
"""Where nothing is told, for Together."""
FLAGS_OF_FIELDS = {
    "model": "--model",
    "training_file": "--train-id",
    "validation_file": "--val-id",
    "suffix": "--suffix",
}
"""Fields by which a job is known again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a job is told beside its files. None leaves it to the provider, or to what is usual there."""

    model: str
    n_epochs: int = 2
    batch_size: int | str = 8
    learning_rate: float | None = None
    n_evals: int | None = None
    suffix: str | None = None
    lora: bool = True
    extra: tuple[tuple[str, Any], ...] = ()
    """Further fields; a dot leads into an object."""


def check_order(order: Order, dialect: Dialect, *, validated: bool) -> None:
    """Refuse what the API cannot be told.

    Raises:
        ConfigError: a flag is wrong.
    """
    _check_common(order, dialect)
    if dialect.name == OPENAI:
        if order.learning_rate is not None:
            raise ConfigError(
                "--learning-rate is not known to OpenAI's API, which multiplies a rate of its own: leave it out, or "
                "--extra method.supervised.hyperparameters.learning_rate_multiplier=0.5"
            )
        if order.n_evals is not None or not order.lora:
            raise ConfigError("--n-evals and --no-lora are not known to OpenAI's API; leave them out")
    elif order.n_evals and not validated:
        raise ConfigError("--n-evals needs examples to evaluate with: --val FILE, or --val-id")


def _check_common(order: Order, dialect: Dialect) -> None:
    word = "auto" if dialect.name == OPENAI else "max"
    if not 1 <= order.n_epochs <= dialect.epochs:
        raise ConfigError(f"--n-epochs must be from 1 to {dialect.epochs}, not {order.n_epochs}")
    if isinstance(order.batch_size, str) and order.batch_size != word:
        raise ConfigError(f"--batch-size must be a number or {word}, not {order.batch_size}")
    if isinstance(order.batch_size, int) and order.batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {order.batch_size}")
    if order.learning_rate is not None and not 0 < order.learning_rate < 1:
        raise ConfigError(f"--learning-rate must be above 0 and below 1, not {order.learning_rate}")
    if order.n_evals is not None and not 0 <= order.n_evals <= 100:  # noqa: PLR2004 - Together's limit
        raise ConfigError(f"--n-evals must be from 0 to 100, not {order.n_evals}")
    if order.suffix is not None and not 1 <= len(order.suffix) <= dialect.suffix_chars:
        raise ConfigError(f"--suffix must have 1 to {dialect.suffix_chars} characters, not {len(order.suffix)}")


def evaluations(order: Order, dialect: Dialect, *, validated: bool) -> int:
    """How often the validation file is gone through, as far as that is ours to say."""
    if dialect.name == OPENAI or not validated:
        return 0
    return EVALUATIONS if order.n_evals is None else order.n_evals


def job_body(order: Order, dialect: Dialect, *, training: str, validation: str | None) -> dict[str, Any]:
    """What creates the job.

    Raises:
        ConfigError: an --extra field leads into something that is no object.
    """
    body: dict[str, Any] = {"model": order.model, "training_file": training}
    if validation is not None:
        body["validation_file"] = validation
    if dialect.name == OPENAI:
        said = {"n_epochs": order.n_epochs, "batch_size": order.batch_size}
        body["method"] = {"type": "supervised", "supervised": {"hyperparameters": said}}
    else:
        rate = LEARNING_RATE if order.learning_rate is None else order.learning_rate
        body |= {"n_epochs": order.n_epochs, "batch_size": order.batch_size, "learning_rate": rate}
        if validation is not None:
            body["n_evals"] = evaluations(order, dialect, validated=True)
        if not order.lora:
            # Without a type it trains LoRA, at the rank it thinks right for the model; with it, it wants the rank told.
            body["training_type"] = {"type": "Full"}
    if order.suffix is not None:
        body["suffix"] = order.suffix
    for name, value in order.extra:
        _put(body, name, value)
    return body


def extra_of(text: str) -> tuple[str, Any]:
    """`key=value` of --extra; a value that is JSON is taken as such, any other as text.

    Raises:
        ConfigError: there is no key, or no value.
    """
    name, equals, value = text.partition("=")
    if not equals or not all(name.split(".")):
        raise ConfigError(f"--extra {text!r}: give a field and its value, such as --extra warmup_ratio=0.1")
    if name in FLAGS_OF_FIELDS:
        raise ConfigError(f"--extra {name}: there is a flag for it, {FLAGS_OF_FIELDS[name]}")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        inner = body.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--extra {name}: {part} is no object but {inner!r}")
        body = inner
    body[last] = value
