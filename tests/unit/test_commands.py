"""What the list of commands says is what the commands say."""

from __future__ import annotations

import importlib

import pytest
from cyclopts import App

from cli import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    place, summary = COMMANDS[name]
    module, _, function = place.partition(":")
    target = getattr(importlib.import_module(module), function)
    said = target.help if isinstance(target, App) else target.__doc__
    assert said.split("\n\n")[0].replace("\n    ", " ") == summary
