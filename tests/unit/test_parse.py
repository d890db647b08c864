"""Raw files of every age and run folders, to labels or reasons."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, FolderInUse, InputError, SinkBroken
from engine.types import Answer
from labels.codebook import load_codebook
from labels.parse import ParseOptions, Tally, parse
from sinks.shards import ShardSink
from tests.fakes.codebooks import ODD, all_codebooks, perfect_answer
from tests.fakes.records import failure, result

STANDARD = {"china_stance_score": 0.5, "china_sensitive": "no", "collective_action": "yes"}
VIDEO = "7531309745475554591"
FIELDS = ["idx", "meta_id", "original_meta_id", "parsed", "raw", "json", "reason", "repairs"]


def raw_line(idx: int, said: object, **more: object) -> dict[str, Any]:
    """A line as `infer` writes it."""
    return {
        "idx": idx,
        "meta_id": f"{VIDEO[:-2]}{idx:02d}",
        "raw": said if isinstance(said, str) else json.dumps(said),
        "attempt": 1,
        "latency_s": 1.234,
        "model": "m",
        "finish_reason": "stop",
        "truncated": False,
        "max_tokens_used": 128,
        **more,
    }


FAILED = {"finish_reason": None, "truncated": None, "raw": "<<REQUEST FAILED: HTTP 500: no>>"}


class Bench:
    """A folder with a raw file in it, and what `parse` makes of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = folder / "raw.jsonl"
        self.out = folder / "parsed.jsonl"
        self.said: list[str] = []

    def write(self, *lines: dict[str, Any] | str, end: str = "\n") -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.raw.write_text("\n".join(texts) + end)

    def parse(self, **options: Any) -> Tally:
        told: dict[str, Any] = {"raw": self.raw, "out": self.out, "codebook": "standard"} | options
        return parse(ParseOptions(**told), say=self.said.append)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


@pytest.fixture
def at(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_record_has_the_fields_of_the_scripts_and_ours_after_them(at: Bench) -> None:
    at.write(raw_line(0, STANDARD), raw_line(1, f"```json\n{json.dumps(STANDARD)}\n```"), raw_line(2, "Sorry."))
    tally = at.parse()
    first, second, third = at.lines()
    assert list(first) == FIELDS
    assert first == {
        "idx": 0,
        "meta_id": "7531309745475554500",
        "original_meta_id": "7531309745475554500",
        "parsed": True,
        "raw": json.dumps(STANDARD),
        "json": STANDARD,
        "reason": None,
        "repairs": [],
    }
    assert (second["json"], second["repairs"]) == (STANDARD, ["code_fence"])
    assert (third["parsed"], third["json"], third["reason"], third["raw"]) == (False, None, "not_json", "Sorry.")
    assert tally.text() == "parsed 2/3 = 0.667\nanswers without labels: 1\n  1 not_json\nrepairs: 1 code_fence"


@pytest.mark.parametrize(
    "line",
    [
        raw_line(1, "x") | FAILED,
        {"idx": 1, "status": "error", "error": "timeout", "raw": None},
        {"idx": 1, "meta_id": "a", "status": "error", "error": "timeout", "raw": ""},
        raw_line(1, STANDARD) | FAILED | {"status": "error", "error_kind": "server", "error": "HTTP 500: no"},
    ],
)
def test_a_failed_request_is_no_answer_and_counted_apart(at: Bench, line: dict[str, Any]) -> None:
    at.write(raw_line(0, STANDARD), line)
    tally = at.parse(print_bad=5, fail_log=at.folder / "bad.log")
    failed = at.lines()[1]
    assert (failed["parsed"], failed["json"], failed["reason"]) == (False, None, "request_failed")
    assert tally.text() == "parsed 1/2 = 0.500\nrequests without an answer: 1; of the answers 1/1 = 1.000"
    assert (tally.bad, (at.folder / "bad.log").read_text()) == ([], "")


def test_an_answer_that_looks_like_a_failed_request_is_an_answer(at: Bench) -> None:
    at.write(raw_line(0, "<<REQUEST FAILED: says the model>>"))
    at.parse()
    assert at.lines()[0]["reason"] == "not_json"


def test_older_records_are_read(at: Bench) -> None:
    at.write(
        {"idx": 7, "status": "ok", "error": None, "raw": json.dumps(STANDARD)},
        {"raw": json.dumps(STANDARD), "used_max_tokens": 4},
        {"idx": 9, "meta_id": 7531309745475554591, "raw": json.dumps(STANDARD), "latency_s": float("nan")},
        {"idx": 10, "meta_id": "half \ud83d", "raw": "\ud83d"},
    )
    at.parse()
    assert [(said["idx"], said["meta_id"], said["parsed"]) for said in at.lines()] == [
        (7, "7", True),
        (1, "1", True),
        (9, "7531309745475554591", True),
        (10, "half \ufffd", False),
    ]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(at: Bench) -> None:
    at.write("\ufeff" + json.dumps(raw_line(0, STANDARD)), "", "  ", raw_line(1, STANDARD), end="\n\n")
    assert at.parse().total == 2


@pytest.mark.parametrize("broken", ['{"raw": ', "[1]", '{"idx": 1}', '{"raw": {"a": 1}}', '{"raw": null}'])
def test_a_line_that_is_no_raw_record_is_named_and_nothing_is_written(at: Bench, broken: str) -> None:
    at.write(raw_line(0, STANDARD), broken, raw_line(2, STANDARD))
    at.out.write_text("before")
    with pytest.raises(InputError, match=r"raw\.jsonl line 2: no raw record"):
        at.parse()
    assert at.out.read_text() == "before"
    assert sorted(path.name for path in at.folder.iterdir()) == ["parsed.jsonl", "raw.jsonl"]


def test_a_broken_line_far_down_leaves_no_part_of_a_file(at: Bench) -> None:
    at.write(*(raw_line(idx, STANDARD) for idx in range(400)), "{")
    with pytest.raises(InputError, match="line 401"):
        at.parse(fail_log=at.folder / "bad.log")
    assert [path.name for path in at.folder.iterdir()] == ["raw.jsonl"]


def test_a_torn_last_line_is_named_and_left_out(at: Bench) -> None:
    at.write(raw_line(0, STANDARD), '{"idx": 1, "meta_id": "75', end="")
    assert at.parse().total == 1
    assert "line 2: the file breaks off in this line; it was left out" in at.said[0]


def test_the_fail_log_holds_every_answer_without_labels_as_a_block(at: Bench) -> None:
    at.write(raw_line(3, "no\nJSON"), raw_line(4, STANDARD), raw_line(5, "{"))
    log = at.folder / "logs" / "deep" / "bad.log"
    tally = at.parse(fail_log=log, print_bad=1)
    assert log.read_text() == (
        "IDX=3 META_ID=7531309745475554503 GROUP= REASON=not_json\nno\nJSON\n---\n"
        "IDX=5 META_ID=7531309745475554505 GROUP= REASON=truncated\n{\n---\n"
    )
    assert tally.bad == ["IDX=3 META_ID=7531309745475554503 GROUP= REASON=not_json\nno\nJSON\n---\n"]


def test_the_limit_counts_answers(at: Bench) -> None:
    at.write(*(raw_line(idx, STANDARD) for idx in range(5)))
    assert at.parse(limit=3).total == 3


def test_names_of_unknown_keys_are_not_counted_one_by_one(at: Bench) -> None:
    at.write(*(raw_line(idx, STANDARD | {f"key{idx}": 1}) for idx in range(5)))
    assert at.parse().reasons == {"unknown_key": 5}
    assert at.lines()[3]["reason"] == "unknown_key:key3"


# Which codebook


@pytest.mark.parametrize("book", [book for book in all_codebooks() if book.name not in {"cooking", "odd"}])
def test_without_a_name_the_shipped_codebook_is_taken_that_reads_the_answers(at: Bench, book: Any) -> None:
    rng = random.Random(3)
    at.write("", *(raw_line(idx, perfect_answer(book.system_prompt(), rng)) for idx in range(4)), raw_line(4, "no"))
    tally = at.parse(codebook=None, numeric_labels="numeric" in book.name)
    assert (tally.parsed, tally.total) == (4, 5)
    assert at.said == [f"Codebook {book.name}: it reads 4 of the first 5 answers. --codebook names another."]


def test_a_file_that_nothing_reads_is_read_by_the_comprehensive_one(at: Bench) -> None:
    at.write(raw_line(0, "nothing"))
    at.parse(codebook=None)
    assert "comprehensive: it reads 0 of the first 1 answers" in at.said[0]


def test_an_empty_file_gives_an_empty_one(at: Bench) -> None:
    at.write(end="")
    assert at.parse(codebook=None).text() == "parsed 0/0 = n/a"
    assert at.lines() == []


# Groups

BOOK = load_codebook("comprehensive")
GROUPED = {mode: list(BOOK.groups[mode]) for mode in ("by-category", "binary", "per-item")}


def grouped_line(idx: int, group: str, said: object, **more: object) -> dict[str, Any]:
    video = f"{VIDEO}{idx}"
    named = {"meta_id": f"{video}__group_{group}", "group_id": group, "original_meta_id": video}
    return raw_line(idx, said) | named | more


@pytest.mark.parametrize("mode", GROUPED)
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("copied", [True, False])
def test_each_record_is_read_under_its_group(at: Bench, mode: str, told: bool, copied: bool) -> None:  # noqa: FBT001
    """The group stands in a field, or in the id alone; and --group-mode may be left out."""
    rng = random.Random(1)
    made = {group: perfect_answer(BOOK.system_prompt((mode, group)), rng) for group in GROUPED[mode]}
    lines = [grouped_line(0, group, said) for group, said in made.items()]
    if not copied:
        lines = [{key: line[key] for key in line if key not in {"group_id", "original_meta_id"}} for line in lines]
    at.write(*lines)
    tally = at.parse(codebook="comprehensive", group_mode=mode if told else None)
    assert tally.parsed == len(made)
    for line, (group, said) in zip(at.lines(), made.items(), strict=True):
        assert list(line) == [*FIELDS[:6], "group_id", *FIELDS[6:]]
        assert (line["json"], line["group_id"], line["original_meta_id"]) == (said, group, f"{VIDEO}0")
        assert line["meta_id"] == f"{VIDEO}0__group_{group}"


def test_a_group_that_is_missing_or_unknown_is_a_reason_of_its_own(at: Bench) -> None:
    at.write(raw_line(0, "{}"), grouped_line(1, "Z", "{}"), raw_line(2, "{}", meta_id="7__group_Q"))
    tally = at.parse(codebook="comprehensive", group_mode="by-category")
    assert [line["reason"] for line in at.lines()] == ["no_group", "unknown_group:Z", "unknown_group:Q"]
    assert tally.reasons == {"no_group": 1, "unknown_group": 2}


def test_an_id_that_looks_like_one_of_a_group_is_an_id(at: Bench) -> None:
    at.write(raw_line(0, STANDARD, meta_id="my__group_photo"))
    at.parse()
    assert (at.lines()[0]["meta_id"], at.lines()[0]["parsed"]) == ("my__group_photo", True)
    assert at.lines()[0]["original_meta_id"] == "my__group_photo"


def test_asked_whole_no_id_is_taken_apart(at: Bench) -> None:
    at.write(raw_line(0, STANDARD, meta_id="7__group_china_sensitive"))
    at.parse(group_mode="single")
    assert at.lines()[0]["original_meta_id"] == "7__group_china_sensitive"
    assert at.lines()[0]["json"] == STANDARD


def test_a_group_that_two_modes_have_needs_the_mode(at: Bench) -> None:
    path = at.folder / "odd.toml"
    path.write_text(ODD + '[groups.others]\nfirst = ["tags"]\n')
    at.write(grouped_line(0, "first", {"tags": []}))
    with pytest.raises(ConfigError, match=r"stands in halves, others of odd; say which with --group-mode"):
        at.parse(codebook=str(path))
    assert at.parse(codebook=str(path), group_mode="others").parsed == 1


# Merging


def merged_lines(at: Bench, **options: Any) -> list[dict[str, Any]]:
    at.parse(codebook="comprehensive", merge=True, **options)
    return at.lines()


def test_merging_gives_one_record_a_video_also_of_those_that_failed(at: Bench) -> None:
    rng = random.Random(5)
    parts = {group: perfect_answer(BOOK.system_prompt(("by-category", group)), rng) for group in "ABCD"}
    parts["A"]["china_related"], parts["B"]["china_sensitive"] = "no", "no"
    good = [grouped_line(0, group, said) for group, said in parts.items()]
    bad = [grouped_line(1, group, "?") for group in "AB"] + [grouped_line(1, "C", "?") | FAILED]
    at.write(*good[2:], *bad, *good[:2])
    tally = at.parse(codebook="comprehensive", merge=True)
    whole, failed = at.lines()
    assert list(whole) == ["meta_id", "parsed", "complete", "groups_present", "json", "reason", "reasons", "repairs"]
    assert (whole["meta_id"], whole["parsed"], whole["complete"]) == (f"{VIDEO}0", True, True)
    assert whole["groups_present"] == ["A", "B", "C", "D"]
    assert list(whole["json"]) == [dimension.key for dimension in BOOK.dimensions]
    assert (whole["json"]["china_sensitive"], whole["reason"]) == ("", None)
    assert "blanked:china_sensitive" in whole["repairs"]
    assert failed == {
        "meta_id": f"{VIDEO}1",
        "parsed": False,
        "complete": False,
        "groups_present": [],
        "json": None,
        "reason": "no_group_parsed",
        "reasons": {"A": "not_json", "B": "not_json", "C": "request_failed"},
        "repairs": [],
    }
    assert "merged 2 videos: 1 complete, 1 without any labels" in tally.text()


def test_only_complete_ones_are_written_on_demand_and_the_others_counted(at: Bench) -> None:
    at.write(grouped_line(0, "C", {"hate_speech": "no", "harmful_content": "no"}))
    tally = at.parse(codebook="comprehensive", merge=True, require_complete=True)
    assert at.lines() == []
    assert "merged 0 videos: 0 complete, 1 left out as incomplete" in tally.text()


@pytest.mark.parametrize("mode", [None, "by-category"])
def test_a_video_of_unknown_groups_stays(at: Bench, mode: str | None) -> None:
    at.write(grouped_line(0, "Z", "{}"))
    (line,) = merged_lines(at, group_mode=mode)
    assert (line["meta_id"], line["parsed"], line["reasons"]) == (f"{VIDEO}0", False, {"?": "unknown_group:Z"})


def test_answers_that_were_asked_whole_cannot_be_merged(at: Bench) -> None:
    at.write(raw_line(0, STANDARD))
    with pytest.raises(InputError, match="has no group, so there is nothing to merge it with"):
        at.parse(merge=True)
    assert not at.out.exists()


# Run folders

RUN = {"settings": {"recipe": {"codebook": "standard", "codebook_digest": load_codebook("standard").digest}}}


def run_folder(at: Bench, manifest: dict[str, Any] = RUN) -> None:
    at.raw = at.folder / "run"
    with ShardSink.open(at.raw, manifest=manifest, shards=3, resume=False) as sink:
        for row in (5, 0, 3):
            sink.put(result(row, json.dumps(STANDARD), answer=Answer(labels=None)))
        sink.put(result(1, "nothing"))
        sink.put(failure(2, "HTTP 400: \x1b no"))
        sink.put(failure(4))
    with ShardSink.open(at.raw, manifest=manifest, shards=3, resume=True, retry_failed=True) as sink:
        sink.put(failure(2, "HTTP 400: again"))
        sink.put(result(4, json.dumps(STANDARD)))


def test_a_run_folder_is_read_in_the_order_of_the_input_by_its_own_codebook(at: Bench) -> None:
    run_folder(at)
    tally = at.parse(codebook=None)
    lines = at.lines()
    assert [line["idx"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [line["meta_id"] for line in lines] == [f"id-{row}" for row in range(6)]
    assert [line["reason"] for line in lines] == [None, "not_json", "request_failed", None, None, None]
    assert lines[2]["raw"] == "<<REQUEST FAILED: HTTP 400: again>>"
    assert (tally.parsed, tally.total, at.said) == (4, 6, [])


def test_a_run_by_a_codebook_that_is_not_shipped_needs_its_file(at: Bench) -> None:
    run_folder(at, {"settings": {"recipe": {"codebook": "standard", "codebook_digest": "0" * 16}}})
    with pytest.raises(ConfigError, match="no such one is shipped; name its file with --codebook"):
        at.parse(codebook=None)
    at.parse(codebook="standard")
    assert at.said == ["The run asked by another codebook than standard, or by another edition of it."]


def test_a_run_without_a_codebook_is_read_like_a_file(at: Bench) -> None:
    run_folder(at, {"settings": {"recipe": {"codebook": None}}})
    assert at.parse(codebook=None).parsed == 4
    assert "Codebook standard: it reads 4 of the first 6" in at.said[0]


def test_a_folder_that_answers_are_withdrawn_from_is_not_read(at: Bench) -> None:
    run_folder(at)
    (at.raw / "checkpoint" / "withdrawal").touch()
    with pytest.raises(FolderInUse, match="answers are being withdrawn"):
        at.parse()
    assert not at.out.exists()


def test_a_folder_that_holds_no_run_is_named(at: Bench) -> None:
    at.raw = at.folder
    with pytest.raises(ConfigError):
        at.parse(out=at.folder.parent / "x.jsonl")


# What cannot be


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codebook": "standard", "numeric_labels": True}, "leave one out"),
        ({"require_complete": True}, "goes with --merge"),
        ({"merge": True, "group_mode": "single"}, "--merge joins the answers of several groups"),
        ({"group_mode": "by-category"}, "--group-mode by-category: standard has per-item, single"),
        ({"print_bad": -1}, "numbers from 0 up"),
        ({"raw": Path("/nonesuch.jsonl")}, "No such file"),
        ({"original_data": Path("/nonesuch.csv")}, "must end in .csv or .parquet"),
    ],
)
def test_flags_that_do_not_go_together_are_named(at: Bench, options: dict[str, Any], words: str) -> None:
    at.write(raw_line(0, STANDARD))
    with pytest.raises(ConfigError, match=words):
        at.parse(**options)
    assert not at.out.exists()


@pytest.mark.parametrize("name", ["raw.jsonl", "other/../raw.jsonl", "link.jsonl"])
def test_what_is_read_is_never_written_over(at: Bench, name: str) -> None:
    at.write(raw_line(0, STANDARD))
    (at.folder / "other").mkdir()
    (at.folder / "link.jsonl").symlink_to(at.raw)
    for options in ({"out": at.folder / name}, {"fail_log": at.folder / name}):
        with pytest.raises(ConfigError, match="in the place of what is read"):
            at.parse(**options)
    assert json.loads(at.raw.read_text()) == raw_line(0, STANDARD)


def test_nothing_is_written_into_a_run_folder(at: Bench) -> None:
    run_folder(at)
    with pytest.raises(ConfigError, match="in the place of what is read, or inside of it"):
        at.parse(out=at.raw / "results" / "shard-00000.jsonl")


def test_a_file_that_cannot_be_written_leaves_what_was_there(at: Bench) -> None:
    at.write(raw_line(0, STANDARD))
    (at.folder / "file").write_text("")
    with pytest.raises(SinkBroken, match="type the command again"):
        at.parse(out=at.folder / "file" / "parsed.jsonl")


# Beside the user's own table

TABLE = f'meta_id,text,note\n{VIDEO[:-2]}01,"a ""b"",\nc",=1\n999,,\n{VIDEO[:-2]}00,ä,\nbroken\n'


def test_labels_stand_beside_the_rows_of_a_table(at: Bench) -> None:
    table = at.folder / "videos.csv"
    table.write_text(TABLE)
    at.write(raw_line(0, STANDARD), raw_line(1, "?"), raw_line(2, STANDARD))
    tally = at.parse(original_data=table, out=at.folder / "joined.csv")
    text = (at.folder / "joined.csv").read_text()
    assert text.splitlines()[0] == (
        '"meta_id","text","note","pred_china_stance_score","pred_china_sensitive","pred_collective_action","pred_parsed"'
    )
    assert list(csv.reader(text.splitlines(keepends=True)))[1:] == [
        [f"{VIDEO[:-2]}01", 'a "b",\nc', "=1", "", "", "", "false"],
        ["999", "", "", "", "", "", ""],
        [f"{VIDEO[:-2]}00", "ä", "", "0.5", "no", "yes", "true"],
    ]
    assert (
        "3 rows, 1 with labels, 1 without an answer; 1 answers whose id no row has; 1 broken rows left out, first line"
    ) in tally.text()


def test_merged_labels_stand_in_a_parquet_table_with_their_types(at: Bench) -> None:
    table = at.folder / "videos.parquet"
    pq.write_table(pa.table({"id": [f"{VIDEO}0", "x"], "n": [1, 2]}), table)
    at.write(grouped_line(0, "C", {"hate_speech": "no", "harmful_content": "yes"}), grouped_line(0, "D", "?"))
    at.parse(codebook="comprehensive", merge=True, original_data=table, out=at.folder / "joined.parquet")
    first, second = pq.read_table(at.folder / "joined.parquet").to_pylist()
    assert (first["n"], first["pred_hate_speech"], first["pred_news_segments"]) == ("1", "no", None)
    assert (first["pred_parsed"], first["pred_complete"]) == (True, False)
    assert {second[name] for name in second if name.startswith("pred_")} == {None}


@pytest.mark.parametrize(
    ("header", "words"),
    [("text", "id"), ("meta_id,pred_parsed", "two columns 'pred_parsed'"), ("meta_id,a,a", "two columns 'a'")],
)
def test_a_table_that_cannot_take_the_columns_is_refused(at: Bench, header: str, words: str) -> None:
    table = at.folder / "videos.csv"
    table.write_text(header + "\n")
    at.write(raw_line(0, STANDARD))
    with pytest.raises(InputError, match=words):
        at.parse(original_data=table, out=at.folder / "joined.csv")
    assert not (at.folder / "joined.csv").exists()


def test_answers_about_groups_must_be_merged_to_stand_in_a_table(at: Bench) -> None:
    table = at.folder / "videos.csv"
    table.write_text(TABLE)
    at.write(grouped_line(0, "C", {"hate_speech": "no", "harmful_content": "yes"}))
    with pytest.raises(InputError, match="needs --merge for such"):
        at.parse(codebook="comprehensive", original_data=table, out=at.folder / "joined.csv")


def test_of_several_answers_for_an_id_the_first_with_labels_counts(at: Bench) -> None:
    table = at.folder / "videos.csv"
    table.write_text("id\na\n")
    answers = ["?", STANDARD, STANDARD | {"china_sensitive": "yes"}]
    at.write(*(raw_line(idx, said, meta_id="a") for idx, said in enumerate(answers)))
    tally = at.parse(original_data=table, out=at.folder / "joined.csv")
    assert '"a","0.5","no","yes","true"' in (at.folder / "joined.csv").read_text()
    assert "2 answers left out, as their id had one" in tally.text()
