"""Chats that are to teach: what would be refused is found before anything is sent, and what is sent says the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, FolderInUse, InputError
from labels.finetune.api import DIALECTS, OPENAI, TOGETHER, dialect_of, events_in, job_in, stored_in
from labels.finetune.check import check_file, check_size, fault_in, line_of, lines_to_send
from labels.finetune.order import Order, check_order, evaluations, extra_of, job_body
from labels.finetune.plan import plan, summary
from labels.finetune.state import Creating, State, alone, digest_of, state_path
from labels.messages import Message, read_chats, text_of
from tests.fakes.finetuning import chat, picture, twelve, write_chats

OPEN, TOGETHERS = DIALECTS[OPENAI], DIALECTS[TOGETHER]
PHOTO = picture()
USER, ANSWER = {"role": "user", "content": "they walk"}, {"role": "assistant", "content": "yes"}


def facts_of(path: Path, *, api: str = TOGETHER, model: str = "m") -> Any:
    return check_file(path, flag="--train", rules=DIALECTS[api].rules, model=model, teaches=True)


def sent(path: Path, *, parts: bool) -> bytes:
    lines = lines_to_send(facts_of(path), flag="--train", parts=parts, rules=TOGETHERS.rules)
    return b"".join(lines)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no messages"),
        ([USER], "must be the answer"),
        ([{"role": "system", "content": "s"}], "must be the answer"),
        ([ANSWER, USER], "in turn"),
        ([USER, USER, ANSWER], "in turn"),
        ([USER, {"role": "system", "content": "s"}, ANSWER], "in turn"),
        ([USER, ANSWER, USER], "must be the answer"),
        ([USER, {"role": "tool", "content": "x"}], "in turn"),
        ([USER, {"role": "assistant", "content": " \n"}], "the assistant is empty"),
        ([USER, {"role": "assistant", "content": None}], "neither a text"),
        ([USER, {"role": "assistant"}], "neither a text"),
        ([{"role": "user", "content": ""}, ANSWER], "the user is empty"),
        ([{"role": "user", "content": []}, ANSWER], "the user is empty"),
        ([USER | {"name": "x"}, ANSWER], 'a key "name"'),
        ([USER, ANSWER | {"weight": 2}], "weight"),
        ([USER, ANSWER | {"weight": True}], "weight"),
        ([{"role": "user", "content": ["x"]}, ANSWER], "neither text nor image_url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}, ANSWER], "neither text nor image_url"),
        ([{"role": "user", "content": [{"type": "text"}]}, ANSWER], "holds no text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, ANSWER], "holds no address"),
        (chat(pictures=["frames:7/frame_0.jpg"]), "without --image-refs"),
        (chat(pictures=["https://example.org/a.jpg"]), "must stand in the file"),
        (chat(pictures=["data:image/gif;base64,AAAA"]), "must stand in the file"),
        (chat(pictures=[PHOTO] * 11), "at most 10"),
        (chat(pictures=["data:image/png;base64," + "A" * (15 << 20)]), "a picture of 11,796,480 bytes"),
        ([USER, {"role": "assistant", "content": chat(pictures=[PHOTO])[1]["content"]}], "of the user only"),
    ],
)
def test_messages_that_a_provider_would_refuse_have_a_fault(messages: list[Message], words: str) -> None:
    assert words in fault_in(messages, TOGETHERS.rules)


@pytest.mark.parametrize(
    "messages",
    [
        [USER, ANSWER],
        [USER, ANSWER, USER, ANSWER],
        [USER, ANSWER | {"weight": 0}],
        chat(pictures=[PHOTO] * 10),
        [{"role": "user", "content": chat(pictures=[PHOTO])[1]["content"][:1]}, ANSWER],
    ],
)
def test_what_can_teach_has_no_fault(messages: list[Message]) -> None:
    assert fault_in(messages, TOGETHERS.rules) == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/jpeg;base64,****", "picture 1 is no base64"),
        ("data:image/png;base64," + base64.b64encode(b"no picture").decode(), "picture 1 is none"),
    ],
)
def test_a_picture_that_is_none_is_found_before_it_is_sent(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(InputError, match=f"line 1: {words}"):
        facts_of(write_chats(tmp_path / "train.jsonl", [chat(pictures=[url])]))


def test_wrong_lines_are_named_and_the_rest_of_them_counted(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "train.jsonl", [chat(), *([[USER]] * 14)])
    with pytest.raises(InputError) as found:
        facts_of(path)
    said = str(found.value)
    assert "14 lines" in said
    assert "line 2: " in said
    assert "line 11: " in said
    assert "line 12: " not in said
    assert "and 4 more" in said


def test_a_file_with_too_few_examples_is_refused_where_the_provider_says_how_many(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "train.jsonl", [chat()] * 9)
    with pytest.raises(InputError, match="9 examples, and at least 10"):
        facts_of(path, api=OPENAI)
    assert facts_of(path).examples == 9
    with pytest.raises(InputError, match="0 examples"):
        facts_of(write_chats(tmp_path / "empty.jsonl", []))


def test_a_file_that_would_be_too_large_is_refused(tmp_path: Path) -> None:
    facts = facts_of(twelve(tmp_path / "train.jsonl"))
    facts.line_bytes = OPEN.rules.file_bytes - facts.strings
    check_size(facts, parts=False, rules=OPEN.rules)
    with pytest.raises(InputError, match="--train-id"):
        check_size(facts, parts=True, rules=OPEN.rules)


def test_only_messages_are_sent_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "train.jsonl", [chat()] * 3, meta_id="7", group_id="A")
    path.write_text(path.read_text() + "\n\n")
    found = plan(Order(model="m"), TOGETHERS, training=path, validation=None)
    assert "left out: group_id, meta_id" in summary(found)
    assert [json.loads(line) for line in sent(path, parts=False).splitlines()] == [{"messages": chat()}] * 3


def test_one_content_of_parts_in_either_file_makes_parts_of_all(tmp_path: Path) -> None:
    train = twelve(tmp_path / "train.jsonl")
    val = write_chats(tmp_path / "val.jsonl", [chat(pictures=[PHOTO])])
    assert not plan(Order(model="m"), OPEN, training=train, validation=None).parts
    found = plan(Order(model="m"), OPEN, training=train, validation=val)
    assert found.parts
    assert "Every content is sent as a list of parts" in summary(found)
    lines = [json.loads(line) for line in sent(train, parts=True).splitlines()]
    assert lines[3]["messages"][1]["content"] == [{"type": "text", "text": "row 3"}]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(lambda text: "x" + text)
PARTS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.one_of(
        TEXTS.map(lambda text: {"type": "text", "text": text}),
        st.sampled_from(
            [{"type": "image_url", "image_url": {"url": PHOTO}}, {"type": "image_url", "image_url": PHOTO}]
        ),
    ),
    min_size=1,
    max_size=4,
)
TEXT_PARTS = st.lists(TEXTS.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(st.one_of(TEXTS, TEXT_PARTS))})
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": draw(st.one_of(TEXTS, PARTS))})
        messages.append({"role": "assistant", "content": draw(st.one_of(TEXTS, TEXT_PARTS))})
    return messages


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(chats=st.lists(conversations(), min_size=1, max_size=4), more=st.booleans())
def test_what_is_sent_keeps_every_text_and_has_one_form(
    tmp_path_factory: pytest.TempPathFactory, *, chats: list[list[dict[str, Any]]], more: bool
) -> None:
    folder = tmp_path_factory.mktemp("law")
    path = write_chats(folder / "train.jsonl", chats, **({"meta_id": "7"} if more else {}))
    found = plan(Order(model="m"), TOGETHERS, training=path, validation=None)
    copy = folder / "sent.jsonl"
    copy.write_bytes(sent(path, parts=found.parts))
    facts = found.training.facts
    assert facts is not None
    assert copy.stat().st_size - facts.sent_bytes(parts=found.parts) == 0
    # Whoever splits the file in another way finds the same lines.
    assert len(copy.read_text(encoding="utf-8").splitlines()) == len(chats)
    again = list(read_chats(copy, flag="--train"))
    assert [chat.keys for chat in again] == [("messages",)] * len(chats)
    for before, after in zip(chats, again, strict=True):
        assert [text_of(m["content"]) for m in before] == [text_of(m["content"]) for m in after.messages]
        assert [m["role"] for m in before] == [m["role"] for m in after.messages]
    assert len({type(message["content"]) for chat in again for message in chat.messages}) == 1
    assert not any(fault_in(chat.messages, TOGETHERS.rules) for chat in again)


def test_sending_what_was_sent_changes_nothing(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "train.jsonl", [chat("a\u2028b"), chat(pictures=[PHOTO])])
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(sent(path, parts=True))
    assert b"\\u2028" in copy.read_bytes()
    assert sent(copy, parts=True) == copy.read_bytes()


def test_a_file_that_changes_after_it_was_checked_is_not_sent(tmp_path: Path) -> None:
    path = twelve(tmp_path / "train.jsonl")
    facts = facts_of(path)
    write_chats(path, [chat("another")] * 12)
    with pytest.raises(InputError, match="changed while it was read"):
        list(lines_to_send(facts, flag="--train", parts=False, rules=TOGETHERS.rules))


def test_pictures_are_counted_by_the_formula_of_the_model(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "train.jsonl", [chat(pictures=[PHOTO] * 2)] * 3)
    unknown, known = facts_of(path), facts_of(path, model="meta-llama/Llama-3.2-90B-Vision-Instruct-Turbo")
    assert (unknown.pictures, unknown.uncounted, unknown.picture_tokens) == (6, 6, 0)
    assert (known.uncounted, known.picture_tokens) == (0, 6 * 1601)


def test_a_pipe_and_a_missing_file_are_wrong_flags(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        facts_of(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="is no file"):
        facts_of(tmp_path)


def test_the_same_file_twice_evaluates_nothing(tmp_path: Path) -> None:
    path = twelve(tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match="same file"):
        plan(Order(model="m"), OPEN, training=path, validation=path)


@pytest.mark.parametrize(
    ("api", "told", "words"),
    [
        (OPENAI, {"learning_rate": 1e-4}, "learning_rate_multiplier"),
        (OPENAI, {"n_evals": 3}, "not known to OpenAI"),
        (OPENAI, {"lora": False}, "not known to OpenAI"),
        (OPENAI, {"batch_size": "max"}, "a number or auto"),
        (OPENAI, {"suffix": "x" * 65}, "1 to 64"),
        (TOGETHER, {"batch_size": "auto"}, "a number or max"),
        (TOGETHER, {"batch_size": 0}, "at least 1"),
        (TOGETHER, {"suffix": ""}, "1 to 40"),
        (TOGETHER, {"n_epochs": 21}, "1 to 20"),
        (TOGETHER, {"n_epochs": 0}, "1 to 20"),
        (TOGETHER, {"learning_rate": 0.0}, "above 0"),
        (TOGETHER, {"learning_rate": float("nan")}, "above 0"),
        (TOGETHER, {"n_evals": 101}, "0 to 100"),
        (TOGETHER, {"n_evals": 3}, "--val"),
    ],
)
def test_what_an_api_cannot_be_told_is_a_wrong_flag(api: str, told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_order(Order(model="m", **told), DIALECTS[api], validated=False)


def test_openai_is_told_hyperparameters_inside_a_method() -> None:
    order = Order(model="m", suffix="s", extra=(extra_of("method.supervised.hyperparameters.n_epochs=3"),))
    body = job_body(order, OPEN, training="file-1", validation="file-2")
    assert body == {
        "model": "m",
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 8}}},
        "suffix": "s",
    }


def test_together_is_told_all_in_one_object_and_lora_by_saying_nothing() -> None:
    plain = job_body(Order(model="m"), TOGETHERS, training="f", validation=None)
    assert plain == {"model": "m", "training_file": "f", "n_epochs": 2, "batch_size": 8, "learning_rate": 1e-4}
    full = job_body(Order(model="m", lora=False, n_evals=3), TOGETHERS, training="f", validation="v")
    assert full["training_type"] == {"type": "Full"}
    assert (full["validation_file"], full["n_evals"]) == ("v", 3)
    assert job_body(Order(model="m"), TOGETHERS, training="f", validation="v")["n_evals"] == 10


def test_validation_is_charged_as_often_as_it_is_gone_through(tmp_path: Path) -> None:
    train, val = twelve(tmp_path / "train.jsonl"), twelve(tmp_path / "val.jsonl", "val")
    found = plan(Order(model="m", n_epochs=3, n_evals=5), TOGETHERS, training=train, validation=val)
    told = [part.facts.tokens for part in found.files if part.facts]
    assert f"about {3 * told[0] + 5 * told[1]:,} tokens are charged" in summary(found)
    assert evaluations(Order(model="m", n_evals=5), TOGETHERS, validated=False) == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=1", ("a", 1)),
        ("a.b=true", ("a.b", True)),
        ("a=x=y", ("a", "x=y")),
        ('a={"b":null}', ("a", {"b": None})),
        ("a=", ("a", "")),
    ],
)
def test_an_extra_value_is_json_or_text(text: str, wanted: tuple[str, Any]) -> None:
    assert extra_of(text) == wanted


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", "training_file=x", "model=x"])
def test_an_extra_without_a_field_of_its_own_is_a_wrong_flag(text: str) -> None:
    with pytest.raises(ConfigError, match="--extra"):
        extra_of(text)


def test_an_extra_that_leads_into_a_number_is_a_wrong_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_epochs is no object"):
        plan(
            Order(model="m", extra=(("n_epochs.x", 1),)),
            TOGETHERS,
            training=twelve(tmp_path / "train.jsonl"),
            validation=None,
        )


@pytest.mark.parametrize(
    ("url", "told", "wanted"),
    [
        ("https://api.together.xyz/v1", "auto", TOGETHER),
        ("https://api.together.ai/v1", "auto", TOGETHER),
        ("https://nottogether.ai/v1", "auto", OPENAI),
        ("https://api.openai.com/v1", "auto", OPENAI),
        ("http://127.0.0.1:1/v1", TOGETHER, TOGETHER),
    ],
)
def test_the_address_says_which_api_is_spoken(url: str, told: str, wanted: str) -> None:
    assert dialect_of(url, told).name == wanted


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ("succeeded", "done"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("validating_files", "going"),
        ("?", "going"),
    ],
)
def test_a_status_word_that_nobody_knows_means_that_the_job_goes_on(said: str, phase: str) -> None:
    assert job_in({"id": "ft-1", "status": said}, OPEN).phase == phase


@pytest.mark.parametrize("said", ["error", "user_error"])
def test_together_has_two_words_for_a_failed_job(said: str) -> None:
    assert job_in({"id": "ft-1", "status": said}, TOGETHERS).phase == "failed"


def test_events_are_put_in_order_however_they_are_told() -> None:
    def told(*at: object) -> dict[str, Any]:
        return {"data": [{"id": str(n), "created_at": when, "message": f"m{n}"} for n, when in enumerate(at)]}

    assert [e.text for e in events_in(told(3, 2, 2, 1), OPEN)] == ["m3", "m2", "m1", "m0"]
    assert [e.text for e in events_in(told(5, 5), OPEN)] == ["m1", "m0"]
    assert [e.text for e in events_in(told(5, 5), TOGETHERS)] == ["m0", "m1"]
    iso = told("2026-11-27T10:00:01Z", "2026-11-27T10:00:00.5Z")
    assert [e.text for e in events_in(iso, TOGETHERS)] == ["m1", "m0"]


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=4,
)
NAMES = ("id", "status", "error", "data", "created_at", "message", "level", "type", "bytes", "filename", "Processed")


SAID = st.dictionaries(st.sampled_from(NAMES), ANYTHING)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(said=SAID, items=st.lists(SAID, max_size=2))
def test_nothing_that_a_server_says_is_an_error_of_ours(said: dict[str, Any], items: list[dict[str, Any]]) -> None:
    for dialect in DIALECTS.values():
        job_in(said, dialect)
        events_in(said, dialect)
        events_in({"data": items}, dialect)
    stored_in(said)


def test_what_was_done_is_remembered_for_each_address(tmp_path: Path) -> None:
    path = state_path(tmp_path / "train.jsonl", None)
    assert path.name == "train.jsonl.finetune.json"
    state = State(path, base_url="https://a/v1")
    state.keep_file("digest", "file-1")
    state.begin("asked", Creating(training_file="file-1", before=("ft-0",)))
    again = State(path, base_url="https://a/v1/")
    assert again.file_id("digest") == "file-1"
    assert again.creating("asked") == Creating(training_file="file-1", before=("ft-0",))
    again.keep_job("asked", "ft-1")
    assert State(path, base_url="https://a/v1").creating("asked") is None
    assert State(path, base_url="https://a/v1").job_id("asked") == "ft-1"
    assert State(path, base_url="https://b/v1").file_id("digest") is None
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version":2,"addresses":{}}', '{"version":1,"addresses":{"a":{}}}'])
def test_a_memory_that_is_damaged_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.jsonl.finetune.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="paid for again"):
        State(path, base_url="https://a/v1")
    assert path.read_text() == text


def test_an_order_is_known_by_what_the_files_hold_and_not_by_their_ids() -> None:
    body = {"model": "m", "training_file": "file-1", "n_epochs": 2}
    same = digest_of("https://a/v1", body | {"training_file": "file-9"}, ["x", None])
    assert digest_of("https://a/v1/", body, ["x", None]) == same
    assert digest_of("https://a/v1", body, ["y", None]) != same
    assert digest_of("https://a/v1", body | {"n_epochs": 3}, ["x", None]) != same
    assert digest_of("https://b/v1", body, ["x", None]) != same


def test_a_second_command_on_the_same_file_does_not_start(tmp_path: Path) -> None:
    path = twelve(tmp_path / "train.jsonl")
    with alone(path), pytest.raises(FolderInUse, match="another finetune"), alone(path):
        pass
    with alone(path):
        pass


def test_a_line_is_the_messages_and_a_newline() -> None:
    assert line_of([USER, ANSWER], parts=False) == orjson.dumps({"messages": [USER, ANSWER]}) + b"\n"
