"""How large a picture may be sent, and a picture ready to be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from encoders.tokens import Size, fit_size, within
from engine.errors import ConfigError

JPEG_QUALITY = 80
"""Of libjpeg, for every picture that is made anew."""
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How large a picture may be sent."""

    rule: str
    """As the user wrote it: `tokens`, `WxH` or `none`."""
    model: str
    box: Size | None = None
    """Pixels, for the rule `WxH`."""
    max_side_px: int | None = None
    """A bound on the longer side besides, whatever the rule."""

    def size(self, width: int, height: int) -> Size:
        """The size to send a picture of this size at."""
        size = width, height
        if self.rule != "none":
            size = within(width, height, self.box) if self.box else fit_size(self.model, width, height)
        return size if self.max_side_px is None else within(*size, (self.max_side_px, self.max_side_px))


def parse_fit(rule: str, *, model: str) -> Fit:
    """Read `--fit`.

    Raises:
        ConfigError: it is none of `tokens`, `none` and `WxH`.
    """
    if rule in {"tokens", "none"}:
        return Fit(rule=rule, model=model)
    box = parse_size(rule)
    if box is None:
        raise ConfigError(f"--fit {rule!r}: give tokens, none, or a size in pixels such as 560x560")
    return Fit(rule=rule, model=model, box=box)


def parse_size(text: str) -> Size | None:
    """`560x560` in pixels, each side at least one; None if it is no size."""
    found = _SIZE.fullmatch(text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    return size if all(size) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Bytes ready to send."""

    data: bytes
    mime: str
    width: int
    height: int
