"""Codebooks to try things on, and answers that are right by what their prompt says."""

from __future__ import annotations

import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

from labels.codebook import SHIPPED, Codebook, load_codebook

ODD = """\
name = "odd"
title = "What is hard to read"
role = "You label."

[[dimensions]]
key = "Farbe"
title = "Colour"
kind = "categorical"
definition = "The colour."
evidence = "What is seen."
values = ["grün", "l'eau", "ratio 1:2", "weiß, hell", "{none}", "cannot_determine"]
synonyms = { "grün" = ["green", "vert"] }
aliases = ["colour", "couleur de l'eau"]

[[dimensions]]
key = "话题"
title = "Subject"
kind = "categorical"
definition = "The subject."
evidence = "What is said."
values = ["政治", "美食", "US", "us"]
when = { key = "Farbe", equals = "grün" }

[[dimensions]]
key = "tags"
title = "Tags"
kind = "list"
definition = "Tags."
evidence = "What is seen."
values = ["a, b", "[c]", "d"]

[[dimensions]]
key = "depth"
title = "Depth"
kind = "number"
definition = "Depth."
evidence = "What is seen."
minimum = -10
maximum = 10

[groups.halves]
first = ["Farbe", "话题"]
second = ["tags", "depth"]
"""
"""Values and keys with everything in them that a loose reader could stumble over."""


def odd_codebook() -> Codebook:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.toml"
        path.write_text(ODD, encoding="utf-8")
        return load_codebook(str(path))


def all_codebooks() -> list[Codebook]:
    """Those that are shipped, and the odd one."""
    return [*(load_codebook(path.stem) for path in sorted(SHIPPED.glob("*.toml"))), odd_codebook()]


def all_groups(book: Codebook) -> list[tuple[str, str] | None]:
    """Every way to ask it: whole, and each group of each mode."""
    return [None, *((mode, group) for mode, members in book.groups.items() for group in members)]


def perfect_answer(prompt: str, rng: random.Random) -> dict[str, Any]:
    """An answer made by the prompt alone, as a reader of it would, who knows neither codebook nor schema."""
    said, unless = dict[str, Any](), dict[str, tuple[str, str]]()
    for line in prompt.partition("\nANSWER\n")[2].partition("\n\n")[0].split("\n"):
        key, form = line.removeprefix("- ").split(": ", 1)
        values, _, condition = form.partition('; "" if ')
        if number := re.fullmatch(r"a number from (\S+) to (\S+)", form):
            said[key] = round(rng.uniform(float(number[1]), float(number[2])), rng.randrange(4))
        elif values.startswith("a JSON array of any of "):
            listed = _quoted(values)
            said[key] = rng.sample(listed, rng.randint(0, len(listed)))
        else:
            said[key] = rng.choice(_quoted(values))
        if condition:
            other, _, value = condition.partition(" is not ")
            unless[key] = (other, json.loads(value))
    for when, value, then, implied in re.findall(r'- If (\S+) is "([^"]+)", (\S+) is "([^"]+)"\.', prompt):
        if said[when] == value:
            said[then] = implied
    for key, (other, value) in unless.items():
        if said.get(other, value) != value:
            said[key] = ""
    return said


def _quoted(text: str) -> list[str]:
    return [json.loads(found) for found in re.findall(r'"(?:[^"\\]|\\.)*"', text)]
