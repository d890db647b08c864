"""`judge`: two models' answers, compared by a model."""

from __future__ import annotations

import os

from engine.errors import ConfigError
from engine.printable import printable
from engine.signals import Signals
from labels.commands.judge_flags import JudgeFlags
from labels.flags import NOT_GIVEN, OF_CALLS, ConfigFile, handed_on
from labels.infer.flags import InferFlags
from labels.judge.calls import Hands, endpoints_of, model_of
from labels.judge.comparison import Compared, Comparison, check, compare, spoken, table_only, write_reports
from labels.judge.inputs import Files
from labels.judge.plan import Sampling
from labels.judge.work import run_folder
from labels.keys import KEY_VARIABLES
from labels.terminal import EXIT_RESUMABLE, EXIT_SOME_FAILED, give_up, resume_command, say

JUDGE, JUDGE_URL = "mistralai/mixtral-8x7b-instruct-v0.1", "https://integrate.api.nvidia.com/v1"
"""Who judged in the script this takes over."""
TOKEN = "API_TOKEN"  # noqa: S105 - the name of a variable
NOTHING_TOLD = JudgeFlags()


def judge(flags: JudgeFlags = NOTHING_TOLD, *, config: ConfigFile = None) -> int:
    """Have a model judge the answers of two others to the same questions, and show which is better, and how surely.

    The key comes from the environment or from a file, never from a flag.
    """
    del config  # read by `flags_from_file`
    told = _comparison(flags)
    check(told, flags.report)
    if flags.table_only:
        _show(told, table_only(told), flags)
        return 0
    signals = Signals(overdue=give_up)
    signals.install()
    compared = compare(told, Hands(flags=_calls(flags), sampling=told.sampling, say=say, signals=signals))
    _show(told, compared, flags)
    outcome = compared.outcome
    assert outcome is not None
    if outcome.trouble is not None:
        raise outcome.trouble
    if outcome.stopped_by is not None:
        say(f"Stopped by {outcome.stopped_by}; every review that came is safe. Go on with:\n  {resume_command()}")
        return EXIT_RESUMABLE
    if not compared.is_whole:
        say("Some reviews are missing or have no scores; all others are safe. Ask for those again with:")
        say(f"  {resume_command()}")
        return EXIT_SOME_FAILED
    return 0


def _show(told: Comparison, compared: Compared, flags: JudgeFlags) -> None:
    # First, for whoever reads the table may stop at its first lines.
    write_reports(told, compared, flags.report)
    for path in flags.report if flags.table_only else (flags.output, *flags.report):
        say(f"{path}")
    cost = compared.report.table.cost_usd
    if cost is not None and not flags.table_only:
        say(f"The reviews cost ${cost:,.4f}; {run_folder(flags.output)} holds every call")
    # Ids, categories and names are what strangers wrote.
    print("\n".join(map(printable, spoken(compared).split("\n"))))


def _comparison(flags: JudgeFlags) -> Comparison:
    return Comparison(
        names=_names(flags),
        files=_files(flags),
        output=flags.output,
        rules=flags.rule_file,
        answers_dir=flags.answers_dir,
        judges=_judges(flags),
        swap=flags.swap,
        sampling=Sampling(temperature=flags.temperature, top_p=flags.top_p, seed=flags.seed, samples=flags.samples),
        chunks=flags.num_chunks,
        chunk_index=flags.chunk_idx,
        with_media=flags.with_media,
        media=flags.media_base_path,
        num_frames=flags.num_frames,
        resume=flags.resume,
    )


def _names(flags: JudgeFlags) -> tuple[str, str]:
    if flags.model_name_list is not None:
        return flags.model_name_list
    if flags.responses_list is not None:
        first, second = flags.responses_list
        return first.stem, second.stem
    return "model 1", "model 2"


def _files(flags: JudgeFlags) -> Files | None:
    if flags.question_file is not None and flags.responses_list is not None:
        return Files(questions=flags.question_file, responses=flags.responses_list, context=flags.context_file)
    if not flags.table_only:
        missing = "--question-file" if flags.question_file is None else "--responses-list"
        raise ConfigError(f"{missing} is missing: it names what is to be judged")
    return None


def _judges(flags: JudgeFlags) -> tuple[str, ...]:
    named = [model for text in flags.endpoint if (model := model_of(text)) is not None]
    judges = tuple(dict.fromkeys(flags.judge_model or named or [JUDGE]))
    for judge_model in judges:
        if flags.endpoint and not endpoints_of(judge_model, flags.endpoint):
            raise ConfigError(f"no --endpoint serves {judge_model}: add one, or leave its model= out")
    unused = [text for text in flags.endpoint if model_of(text) not in {None, *judges}]
    if unused:
        raise ConfigError(f"--endpoint {unused[0]} serves a model that is no --judge-model")
    return judges


def _calls(flags: JudgeFlags) -> InferFlags:
    """How judges are called, but for what and whom."""
    as_before = not flags.judge_model and not flags.endpoint and flags.base_url is None
    return InferFlags(
        **handed_on(flags, OF_CALLS) | {"base_url": JUDGE_URL if as_before else flags.base_url},
        val_file=NOT_GIVEN,
        out=NOT_GIVEN,
        api_key_env=_key_variable(flags, as_before=as_before),
        max_frames=flags.num_frames,
        max_tokens=flags.max_tokens,
        base_sleep=flags.base_sleep,
    )


def _key_variable(flags: JudgeFlags, *, as_before: bool) -> str | None:
    """Which variable holds the key, where it is none of the usual ones."""
    if flags.api_key_env is not None or flags.api_key_file is not None:
        return flags.api_key_env
    # NVIDIA is never sent the key of another provider.
    if as_before:
        return TOKEN
    usual = any(os.environ.get(name) for name in KEY_VARIABLES)
    return TOKEN if not usual and os.environ.get(TOKEN) else None
