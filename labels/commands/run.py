"""`run` and `estimate`: the main job, and what it would cost."""

from __future__ import annotations

import dataclasses

import orjson

from engine.signals import Signals
from labels.ending import ended
from labels.estimate import estimate as estimated
from labels.estimate_text import as_json, as_text
from labels.flags import NOTHING_TOLD, ConfigFile, EstimateFlags, RunFlags
from labels.forecast import forecast
from labels.job import run_job
from labels.loop import on_loop
from labels.serve.job import addressed, told_by
from labels.terminal import give_up, say
from labels.told import job_of


def run(flags: RunFlags, *, config: ConfigFile = None) -> int:
    """Label rows: frames and texts out, one result line a row back, in one streaming pass.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    signals = Signals(overdue=give_up)
    signals.install()
    with told_by(flags, say=say) as told:
        for note in told.notes:
            say(note)
        if flags.dry_run:
            print(on_loop(forecast(told.job)).text())
            return 0
        last = run_job(told.job, say=say, signals=signals)
        if last.stopping is not None and told.job.server is not None:
            told.job.server.hurry()
    return ended(last, folder=str(flags.out), failed="rows failed; failures/ says why", again=("--retry-failed",))


def estimate(flags: EstimateFlags = NOTHING_TOLD, *, config: ConfigFile = None) -> int:
    """What a run would take in tokens, dollars and time, and what other sizes and numbers of frames would.

    Looks at a sample of the rows; sends nothing, unless --probe-tokens asks for two small calls, and writes nothing.
    """
    del config  # read by `flags_from_file`
    told = job_of(dataclasses.replace(addressed(flags), dry_run=True), key_needed=flags.probe_tokens)
    for note in told.notes:
        say(note)
    found = on_loop(estimated(told.job, flags))
    print(orjson.dumps(as_json(found)).decode() if flags.json else as_text(found, sent=flags.probe_tokens))
    return 0
