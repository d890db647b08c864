"""Runs a command as the ancestor of all that it starts: ends them if they take too long, and waits for each.

python -m bench.peers.guard --most-s 60 --home DIR -- COMMAND

So the CPU time of this process's children is that of the whole tree, daemons that left their parent included. Linux
alone hands such orphans to a process that asks for them. The exit code is the command's, or 124 after `--most-s`
seconds. `--home` is the command's home directory: caches of an earlier run are not there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TOO_LONG = 124
"""As of the command `timeout`."""
GRACE_S = 5.0
"""What a command leaves running gets so long to end by itself."""
POLL_S = 0.02


def main() -> int:
    _, _, most_s, _, home, _, *command = sys.argv
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, env=os.environ | {"HOME": home})
    try:
        code = process.wait(float(most_s))
        ends_s = time.monotonic() + GRACE_S
    except subprocess.TimeoutExpired:
        code = TOO_LONG
        ends_s = time.monotonic()
    while _has_children():
        if time.monotonic() >= ends_s:
            _kill_all()
        time.sleep(POLL_S)
    return code


def _has_children() -> bool:
    """Whether any is left, after taking leave of those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_all() -> None:
    """All children; theirs become ours by that, and are met the next time."""
    for text in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in text.read_text(encoding="ascii").split():
            os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
