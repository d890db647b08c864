"""What a provider charges for a model, as far as that is known."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from engine.providers import PRICES, Price


def price_of(base_url: str, model: str) -> Price | None:
    """The price of this model at this address, or None where no list names it: unknown is not zero."""
    host = urlsplit(base_url).hostname
    for listed in PRICES:
        if host in listed.hosts:
            for name, input_usd, output_usd in listed.prices:
                if re.fullmatch(name, model, re.IGNORECASE):
                    return Price(input_usd_per_m=input_usd, output_usd_per_m=output_usd, checked=listed.as_of)
    return None
