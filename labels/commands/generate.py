"""`generate`: prompts about videos and images to answers in one file."""

from __future__ import annotations

from engine.errors import ConfigError, FolderInUse, ResumeMismatch
from engine.signals import Signals
from engine.stats import Snapshot
from labels.ending import ended
from labels.flags import ConfigFile
from labels.generate.answers import write_list
from labels.generate.flags import NOTHING_TOLD, GenerateFlags
from labels.generate.job import generate_job, run_flags
from labels.generate.order import Order, order_of
from labels.generate.prompts import Prompts
from labels.job import run_job
from labels.serve.job import told_by
from labels.terminal import give_up, say


def generate(*settings: str, flags: GenerateFlags = NOTHING_TOLD, config: ConfigFile = None) -> int:
    """Ask a model every prompt of a file about its video or image, and write the answers into one file.

    The key comes from the environment or from a file, never from a flag.

    Args:
        settings: what NeMo's scripts are told, in their form: inference.temperature=0.2 prompt_file=prompts.jsonl.
        flags: all else.
        config: a TOML file whose keys are the flag names; flags beat it.
    """
    del config  # read by `flags_from_file`
    signals = Signals(overdue=give_up)
    signals.install()
    order = order_of(flags, settings)
    last = _generated(order, signals)
    return ended(
        last,
        folder=str(order.folder),
        output=f"  answers   {order.output}",
        failed="prompts failed; their rows say why",
    )


def _generated(order: Order, signals: Signals) -> Snapshot:
    with told_by(run_flags(order), say=say) as base, Prompts(order.prompts) as prompts:
        told = generate_job(base, order, prompts)
        for note in told.notes:
            say(note)
        try:
            last = run_job(told.job, say=say, signals=signals)
        except (ConfigError, FolderInUse, ResumeMismatch):
            # Nothing was begun, and what is there may be another process's.
            raise
        except BaseException:
            _finish(order)
            raise
        _finish(order)
        if last.stopping is not None and told.job.server is not None:
            told.job.server.hurry()
    return last


def _finish(order: Order) -> None:
    """Put into a list what was answered, whatever ended the run."""
    if order.is_list and order.lines.exists():
        write_list(order.lines, order.output)
