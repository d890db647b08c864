"""`codebook`: what a codebook asks, whether it is sound, and the prompt and the schema that come of it."""

from __future__ import annotations

from typing import Annotated

import orjson
from cyclopts import App

from labels.codebook import load_codebook
from labels.codebook_text import as_json, as_text, warnings_of
from labels.flags import ConfigFile, Switch
from labels.terminal import say
from labels.which import asked_group

codebook = App(name="codebook", help="What a codebook asks, whether it is sound, and the prompt it gives.")


@codebook.command
def show(name: str, /, *, json: Annotated[bool, Switch] = False, config: ConfigFile = None) -> int:
    """What a codebook asks: dimensions with their values or ranges, conditions, implications, groups, gold columns.

    Args:
        name: standard, numeric, comprehensive, numeric-comprehensive, cooking, or a TOML file.
        json: print one JSON object instead of text.
        config: a TOML file whose keys are the flag names; flags beat it.
    """
    del config  # read by `flags_from_file`
    book = load_codebook(name)
    print(orjson.dumps(as_json(book)).decode() if json else as_text(book))
    return 0


@codebook.command
def check(name: str, /, *, config: ConfigFile = None) -> int:
    """Whether a codebook is sound. Ends with 0 if it is, with 64 if not; the message names file, line and key.

    Args:
        name: a TOML file, or the name of a shipped codebook.
        config: a TOML file whose keys are the flag names; flags beat it.
    """
    del config  # read by `flags_from_file`
    book = load_codebook(name)
    for warning in warnings_of(book):
        say(f"warning: {warning}")
    print(f"{name}: sound, {len(book.dimensions)} dimensions, digest {book.digest}")
    return 0


@codebook.command
def prompt(  # noqa: PLR0913 - one flag each
    name: str,
    /,
    *,
    group_mode: str | None = None,
    group: str | None = None,
    vision: Annotated[bool, Switch] = False,
    schema: Annotated[bool, Switch] = False,
    response_format: Annotated[bool, Switch] = False,
    config: ConfigFile = None,
) -> int:
    """The system prompt that a codebook gives; with --schema the JSON schema of a right answer.

    Args:
        name: standard, numeric, comprehensive, numeric-comprehensive, cooking, or a TOML file.
        group_mode: by-category, binary, per-item, or another mode of the codebook; goes with --group.
        group: the part of the codebook to ask; its id within the mode.
        vision: with what is put in front for rows that have frames.
        schema: print the JSON schema, with all rules, instead of the prompt.
        response_format: print the response_format that a request carries instead of the prompt.
        config: a TOML file whose keys are the flag names; flags beat it.
    """
    del config  # read by `flags_from_file`
    book = load_codebook(name)
    part = asked_group(book, group_mode, group)
    if schema or response_format:
        said = book.response_format(part) if response_format else book.json_schema(part)
        print(orjson.dumps(said, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{book.vision_context}\n\n{book.system_prompt(part)}" if vision else book.system_prompt(part))
    return 0
