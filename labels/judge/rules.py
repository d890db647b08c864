"""What a judge is told to do, by category: a JSON object of `{"role", "prompt"}`, shipped or the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from engine.errors import InputError
from labels.judge.inputs import Question
from labels.judge.prompt import Rule
from labels.terminal import read_text

SHIPPED = Path(__file__).parent / "rules.json"
BENCH = "llava_bench_"
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Every rule of a file."""

    path: Path
    by_category: Mapping[str, tuple[str, str]]
    """Role and prompt."""

    def rule_for(self, question: Question) -> Rule:
        """The rule of a question: `llava_bench_` and its category, its category, or the default.

        Raises:
            InputError: the file has none for it.
        """
        asked = DEFAULT if question.category is None else question.category
        names = (asked,) if asked.startswith(BENCH) else (BENCH + asked, asked)
        for name in names:
            if name in self.by_category:
                return self._rule(name, name)
        if DEFAULT in self.by_category:
            return self._rule(asked, DEFAULT)
        raise InputError(
            f"{question.place}: category {asked} has no rule in {self.path}; add one under {' or '.join(names)}, or "
            f"one under {DEFAULT} for all others"
        )

    def _rule(self, category: str, name: str) -> Rule:
        role, prompt = self.by_category[name]
        return Rule(category=category, role=role, prompt=prompt)


def load_rules(path: Path = SHIPPED) -> Rules:
    """The rules of a file.

    Raises:
        ConfigError: it cannot be read.
        InputError: it is no such file.
    """
    try:
        said = orjson.loads(read_text(path, "--rule-file"))
    except orjson.JSONDecodeError as error:
        raise InputError(f"--rule-file {path}: no JSON: {error}") from error
    if not isinstance(said, dict) or not said:
        raise InputError(f"--rule-file {path}: an object of categories is needed")
    return Rules(path=path, by_category={name: _role_and_prompt(path, name, rule) for name, rule in said.items()})


def _role_and_prompt(path: Path, name: str, rule: object) -> tuple[str, str]:
    role, prompt = (rule.get("role"), rule.get("prompt")) if isinstance(rule, dict) else (None, None)
    if not isinstance(role, str) or not isinstance(prompt, str):
        raise InputError(f'--rule-file {path}: {name} must be an object with the texts "role" and "prompt"')
    return role, prompt
