"""What the HTTP client makes of statuses, of error bodies in every known shape, and of 200s that are no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import (
    ApiError,
    BadReply,
    LaneRefused,
    RateLimited,
    RequestBlocked,
    RequestRefused,
    RequestTooLarge,
    ServerError,
)
from engine.secret import Secret
from engine.types import RateHint, Reply, Usage
from engine.verdicts import MAX_MESSAGE_CHARS, MAX_PAGE_CHARS, MAX_TOKENS_SAID, one_line, said_in
from tests.fakes.attempts import api_config, attempt
from tests.fakes.servers import RawServer, Wire, answering, chat_body, http_reply

pytestmark = pytest.mark.slow


def outcome(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Reply | ApiError:
    """What one attempt makes of this response."""
    with RawServer(answering(http_reply(body, status=status, headers=headers))) as server:
        return attempt(api_config(server.base_url))


def reply_of(body: bytes, headers: tuple[str, ...] = ()) -> Reply:
    reply = outcome(body, headers=headers)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (307, LaneRefused),
        (400, RequestRefused),
        (401, LaneRefused),
        (402, LaneRefused),
        (403, LaneRefused),
        (404, LaneRefused),
        (405, LaneRefused),
        (407, LaneRefused),
        (408, ServerError),
        (409, ServerError),
        (410, LaneRefused),
        (412, LaneRefused),
        (413, RequestTooLarge),
        (415, LaneRefused),
        (422, RequestRefused),
        (424, ServerError),
        (425, ServerError),
        (429, RateLimited),
        (498, ServerError),
        (499, ServerError),
        (500, ServerError),
        (501, LaneRefused),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (520, ServerError),
        (524, ServerError),
        (529, ServerError),
        (530, ServerError),
    ],
)
def test_each_status_has_its_class(status: int, expected: type[ApiError]) -> None:
    error = outcome(b'{"error": {"message": "words of the server"}}', status=f"{status} Reason")
    assert type(error) is expected
    assert error.status == status
    assert str(error) == f"HTTP {status}: words of the server"
    assert error.paid == (status in {504, 524}), "a gateway gave up on a machine that may have finished"


@pytest.mark.parametrize("status", [201, 202, 204, 206, 304])
def test_a_status_that_is_neither_an_answer_nor_an_error_is_an_error_of_ours(status: int) -> None:
    error = outcome(b"", status=f"{status} Reason")
    assert isinstance(error, ApiError)
    assert error.status == status


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (("Retry-After: 7",), 7.0),
        (("Retry-After: 0.25",), 0.25),
        (("Date: Tue, 24 Nov 2026 08:00:00 GMT", "Retry-After: Tue, 24 Nov 2026 08:00:30 GMT"), 30.0),
        (("Retry-After: 9", "retry-after-ms: 1500"), 1.5),
        (("x-ratelimit-reset: 6m0s",), 360.0),
        (("Retry-After: 99999999",), 6 * 3600.0),
        (("Retry-After: 3", "Retry-After: 5"), 3.0),
        (("Retry-After: -1",), 20.0),
        (("Retry-After: nan",), 20.0),
        (("Retry-After: soon",), 20.0),
        ((), 20.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_is_read_from_the_headers_and_else_from_the_message(
    status: int, headers: tuple[str, ...], seconds: float
) -> None:
    error = outcome(b'{"error": "Please try again in 20s."}', status=f"{status} x", headers=headers)
    assert isinstance(error, ApiError)
    assert error.retry_after_s == pytest.approx(seconds)


SHAPES: dict[str, tuple[bytes, str]] = {
    "OpenAI": (
        b'{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
        "Rate limit reached",
    ),
    "Together": (
        b'{"id":"x","error":{"message":"longer than the context","type":"invalid_request_error"},"error_type":"t"}',
        "longer than the context",
    ),
    "Together files": (b'{"error":"no such file"}', "no such file"),
    "OpenRouter": (
        b'{"error":{"code":429,"message":"Provider returned error","metadata":{"raw":"too many"}}}',
        "Provider returned error: too many",
    ),
    "Azure": (b'{"error":{"code":"content_filter","status":400,"message":"filtered","innererror":{}}}', "filtered"),
    "vLLM": (b'{"error":{"message":"At most 1 image(s)","type":"BadRequestError","code":400}}', "At most 1 image(s)"),
    "older vLLM": (b'{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
    "FastAPI": (b'{"detail":[{"loc":["body"],"msg":"field required","type":"missing"}]}', "field required"),
    "FastAPI, plain": (b'{"detail":"Not Found"}', "Not Found"),
    "list around": (b'[{"error":{"message":"inside a list"}}]', "inside a list"),
    "plain text": (b"upstream connect error\n", "upstream connect error"),
    "JSON string": (b'"just words"', "just words"),
    "cut JSON": (b'{"error":{"message":"cut o', '{"error":{"message":"cut o'),
    "code without words": (b'{"error":{"code":429}}', '{"error":{"code":429}}'),
    "number": (b"17", "17"),
    "number as error": (b'{"error":5}', '{"error":5}'),
    "null": (b"null", "null"),
    "empty list": (b"[]", "[]"),
    "not UTF-8": (b"\xff\xfe caf\xe9", "�� caf�"),
    "control characters": (b'{"error":"a\\u001b]52;c;x\\u0007\\nb\\u202ec"}', "a ]52;c;x b c"),
    "HTML": (
        b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n",
        "<html> <head><title>502 Bad Gateway</title></head> <body>",
    ),
    "empty": (b"", ""),
}


@pytest.mark.parametrize(("body", "words"), SHAPES.values(), ids=SHAPES)
def test_every_known_shape_of_an_error_gives_its_words(body: bytes, words: str) -> None:
    assert said_in(body).message == words
    error = outcome(body, status="503 Service Unavailable")
    assert str(error) == f"HTTP 503: {words or 'Service Unavailable'}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"' + b"word " * 10_000 + b'"}',
        b"word " * 10_000,
        b" " * 100_000 + b"word",
        "ä".encode() * 5_000,
        b"[" * 100_000,
        b"[" * 1000 + b"]" * 1000,
        b'{"error":' * 900 + b"1" + b"}" * 900,
    ],
)
def test_the_words_of_a_huge_or_deep_error_stay_short(body: bytes) -> None:
    assert len(said_in(body).message) <= MAX_MESSAGE_CHARS
    error = outcome(body, status="400 x")
    assert type(error) is RequestRefused
    assert len(str(error)) <= MAX_MESSAGE_CHARS


def test_a_reason_phrase_of_any_bytes_can_be_written() -> None:
    error = outcome(b"", status="500 caf\xe9 \xff\x1b[31m")
    assert type(error) is ServerError
    assert str(error).encode().startswith(b"HTTP 500: caf")
    assert str(error).isprintable()


def test_a_chat_completion_becomes_a_reply() -> None:
    reply = reply_of(chat_body("labels"), headers=("x-request-id: abc",))
    assert (reply.text, reply.finish_reason, reply.model, reply.request_id) == ("labels", "stop", "m", "abc")
    assert reply.usage == Usage(prompt_tokens=100, completion_tokens=3)
    assert 0 < reply.latency_s < 20


def choice(**parts: object) -> bytes:
    return chat_body(choices=[parts])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"17",
        b'"yes"',
        b"[]",
        b"yes",
        b"\xff\xfe",
        b'{"a":' + b"[" * 100_000,
        chat_body()[:-1],
        chat_body() + b"x",
        chat_body(choices=[]),
        chat_body(choices=None),
        chat_body(choices="text"),
        chat_body(choices={"0": {}}),
        chat_body(choices=[None]),
        choice(),
        choice(message=None),
        choice(message="yes"),
        choice(message={}),
        choice(text="yes"),
        chat_body(5),
        chat_body({"text": "yes"}),
        chat_body([{"type": "image", "text": "yes"}]),
        chat_body([{"type": "text"}]),
        chat_body([]),
        chat_body(None),
        chat_body().replace(b'"yes"', b'"\\ud800"'),
        chat_body().replace(b"100", b"NaN"),
        chat_body().replace(b"100", b"9" * 5000),
        b"data: " + chat_body() + b"\n\ndata: [DONE]\n\n",
    ],
)
def test_a_200_without_one_text_is_a_bad_reply(body: bytes) -> None:
    error = outcome(body)
    assert type(error) is BadReply
    assert error.status == 200
    assert error.paid == (error.usage is None), "what it took is either known or may have been charged unseen"


def test_a_text_in_parts_is_put_together() -> None:
    assert reply_of(chat_body([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}])).text == "yes"


def test_what_a_bad_reply_took_is_counted() -> None:
    error = outcome(chat_body(choices=[]))
    assert isinstance(error, BadReply)
    assert error.usage == Usage(prompt_tokens=100, completion_tokens=3)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}, RequestBlocked),
        ({"message": {"content": "half"}, "finish_reason": "content_filter"}, RequestBlocked),
        ({"message": {"content": "half"}, "finish_reason": "error"}, BadReply),
        ({"message": {"content": "half"}, "finish_reason": "abort"}, BadReply),
        ({"message": {"content": None, "tool_calls": [{"id": "c"}]}, "finish_reason": "tool_calls"}, BadReply),
        ({"message": {"content": "half"}, "error": {"code": 502, "message": "broke off"}}, ServerError),
    ],
)
def test_a_200_without_the_answer_asked_for_is_paid_work_of_known_cost(
    part: dict[str, Any], kind: type[ApiError]
) -> None:
    error = outcome(choice(**part))
    assert type(error) is kind
    assert (error.usage, error.paid) == (Usage(prompt_tokens=100, completion_tokens=3), False)
    unknown = outcome(chat_body(choices=[part], usage=None))
    assert type(unknown) is kind
    assert (unknown.usage, unknown.paid) == (None, True)


def test_limits_in_the_headers_of_an_answer_reach_the_reply() -> None:
    headers = ("x-ratelimit-limit-requests: 600", "x-ratelimit-limit-tokens: 60,000")
    assert reply_of(chat_body(), headers=headers).hint == RateHint(requests_per_s=10.0, tokens_per_s=1000.0)
    assert reply_of(chat_body()).hint is None


@pytest.mark.parametrize(
    "inside", [{"message": "no provider", "code": 502}, "no provider", [{"message": "no provider"}]]
)
def test_a_200_with_an_error_inside_is_no_answer_even_with_a_text(inside: object) -> None:
    error = outcome(chat_body(error=inside))
    assert type(error) is (ServerError if isinstance(inside, dict) else BadReply)
    assert error.usage == Usage(prompt_tokens=100, completion_tokens=3)
    assert str(error) == "HTTP 200 with an error inside: no provider"
    unknown = outcome(chat_body(error=inside, usage=None))
    assert isinstance(unknown, ApiError)
    assert unknown.paid


def test_null_content_is_an_empty_answer() -> None:
    """A model that spent its allowance on thinking sends null; `length` then asks for more tokens."""
    body = chat_body(choices=[{"message": {"content": None}, "finish_reason": "length"}])
    reply = reply_of(body)
    assert (reply.text, reply.finish_reason) == ("", "length")


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 10**18, "completion_tokens": 1},
        {"prompt_tokens": 5.5, "completion_tokens": 1},
        {"prompt_tokens": "5", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
    ],
)
def test_usage_that_is_missing_or_impossible_is_unknown(usage: object) -> None:
    assert reply_of(chat_body(usage=usage)).usage is None


@pytest.mark.parametrize(
    ("details", "cached_tokens"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, 4),
        ({"cached_tokens": 4}, 4),
        ({"prompt_tokens_details": None, "cached_tokens": 4}, 4),
        ({"prompt_tokens_details": {}}, 0),
        ({"prompt_tokens_details": {"cached_tokens": -4}}, 0),
        ({"prompt_tokens_details": {"cached_tokens": 11}}, 0),
        ({"prompt_tokens_details": "none"}, 0),
    ],
)
def test_cached_tokens_are_read_where_providers_put_them(details: dict[str, Any], cached_tokens: int) -> None:
    usage = reply_of(chat_body(usage={"prompt_tokens": 10, "completion_tokens": 2, **details})).usage
    assert usage == Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=cached_tokens)


def test_a_model_name_that_is_a_thousand_lists_deep_is_no_name() -> None:
    body = chat_body(model="DEEP").replace(b'"DEEP"', b"[" * 1000 + b"]" * 1000)
    assert reply_of(body).model == ""


def test_names_are_short_and_can_be_written() -> None:
    reply = reply_of(chat_body(model="m" * 5000), headers=("x-request-id: \xff\xfe" + "r" * 5000,))
    assert reply.model == "m" * 200
    assert reply.request_id == "r" * 200
    assert orjson.dumps(reply)


class Answer:
    """A server whose one answer is replaced from example to example."""

    def __init__(self) -> None:
        self.response = b""

    def script(self, wire: Wire) -> None:
        while True:
            wire.request()
            wire.send(self.response)


@pytest.fixture(scope="module")
def answer() -> Iterator[tuple[Answer, str]]:
    said = Answer()
    with RawServer(said.script) as server:
        yield said, server.base_url


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["", "stop", "length"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY_CHAT = st.fixed_dictionaries(
    {"choices": st.lists(JSON | st.fixed_dictionaries({"message": JSON | st.fixed_dictionaries({"content": JSON})}))},
    optional={
        "usage": JSON
        | st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": JSON, "cached_tokens": JSON}),
        "error": JSON,
        "model": JSON,
        "id": JSON,
    },
)


def check(found: Reply | ApiError) -> None:
    """What holds of every outcome: it can be written, it is short, its counts are counts."""
    if isinstance(found, ApiError):
        assert str(found).encode()
        assert len(str(found)) <= MAX_MESSAGE_CHARS
        return
    assert orjson.dumps(found)
    if found.usage is not None:
        assert 0 <= found.usage.cached_tokens <= found.usage.prompt_tokens < MAX_TOKENS_SAID
        assert 0 <= found.usage.completion_tokens < MAX_TOKENS_SAID


@settings(max_examples=300, deadline=None)
@given(value=JSON | NEARLY_CHAT)
def test_any_json_value_as_a_200_is_a_reply_or_an_error_of_ours(answer: tuple[Answer, str], value: object) -> None:
    said, base_url = answer
    said.response = http_reply(json.dumps(value).encode())
    check(attempt(api_config(base_url)))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()), status=st.integers(201, 999))
def test_any_bytes_as_an_error_are_an_error_of_ours(answer: tuple[Answer, str], body: bytes, status: int) -> None:
    said, base_url = answer
    said.response = http_reply(body, status=f"{status} x")
    error = attempt(api_config(base_url))
    assert isinstance(error, ApiError)
    check(error)


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(max_size=200), prefix=st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]))
def test_any_bytes_as_a_response_are_a_reply_or_an_error_of_ours(junk: bytes, prefix: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(prefix + junk)

    with RawServer(script) as server:
        check(attempt(api_config(server.base_url)))


@settings(max_examples=300, deadline=None)
@given(
    cut=st.sampled_from([MAX_PAGE_CHARS, MAX_MESSAGE_CHARS, 2 * MAX_MESSAGE_CHARS]),
    before=st.integers(0, 30),
    spaces=st.integers(0, 5),
    wrapped=st.booleans(),
)
def test_no_part_of_a_key_passes_the_cut_of_a_message(cut: int, before: int, spaces: int, wrapped: bool) -> None:  # noqa: FBT001 - a parameter of tests
    key = "sk-0123456789abcdef"
    text = " " * spaces + "x" * (cut - before) + key
    body = orjson.dumps({"error": text}) if wrapped else text.encode()
    assert "sk-0" not in said_in(body, show=lambda said: one_line(said, Secret(key))).message
