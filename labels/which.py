"""Which codebook and which part of it is meant."""

from __future__ import annotations

from engine.errors import ConfigError
from labels.codebook import SHIPPED, Codebook, load_codebook

SINGLE = "single"


def check_mode(book: Codebook, mode: str) -> None:
    """Whether a codebook can be asked in parts of this kind.

    Raises:
        ConfigError: it cannot.
    """
    if mode not in book.groups:
        raise ConfigError(f"--group-mode {mode}: {book.name} has {', '.join(sorted(book.groups))}")


def asked_group(book: Codebook, mode: str | None, group: str | None) -> tuple[str, str] | None:
    """The group that --group-mode and --group name; None is the whole codebook.

    Raises:
        ConfigError: there is none.
    """
    if mode in {None, SINGLE} and group is None:
        return None
    if mode is None:
        modes = book.modes_of(group or "")
        if len(modes) != 1:
            raise ConfigError(f"--group {group} needs --group-mode: {', '.join(sorted(book.groups))}")
        mode = modes[0]
    check_mode(book, mode)
    if group is None or group not in book.groups[mode]:
        raise ConfigError(f"--group-mode {mode} goes with --group: {', '.join(book.groups[mode])}")
    return mode, group


def codebook_of_run(recipe: object) -> Codebook:
    """The codebook that a run folder was made with, by what its `run.json` says of it.

    Raises:
        ConfigError: it is none of the shipped ones, or another edition of one.
    """
    said = recipe if isinstance(recipe, dict) else {}
    name, digest = said.get("codebook"), said.get("codebook_digest")
    if name is None:
        raise ConfigError("the run had no codebook; name the one to read its answers by with --codebook")
    if not (SHIPPED / f"{name}.toml").is_file() or (book := load_codebook(str(name))).digest != digest:
        raise ConfigError(
            f"the run asked by a codebook {name!r} of digest {digest}, and no such one is shipped; name its file with "
            "--codebook"
        )
    return book
