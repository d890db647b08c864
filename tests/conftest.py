"""What holds for every test."""

from __future__ import annotations

import signal

# A shell that starts the suite in the background leaves SIGINT ignored, and every process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
