"""What the simulated provider refuses, in whose words, and what it tells of its limits, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bench.limit_headers import NONSENSE
from bench.scenario import PROFILES
from engine.hints import parse_span_s
from labels.codebook import load_codebook
from labels.reading import CodebookReader
from tests.fakes.asking import Replied, ask, body_of, told
from tests.fakes.commands import Simulated, simulated

pytestmark = pytest.mark.slow

BOOK = load_codebook("comprehensive")
READER = CodebookReader(codebook=BOOK)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    with simulated(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


def words(replied: Replied) -> str:
    """The message of an error, wherever its shape has it."""
    inner = replied.said.get("error", replied.said)
    return str(inner if isinstance(inner, str) else inner["message"])


IMAGES = {
    "vllm": (400, "At most 2 image(s) may be provided in one request."),
    "openai": (400, "Too many images in request. Max is 2."),
    "azure": (400, "Too many images in request. Max is 2."),
    "groq": (400, "Too many images provided. This model supports up to 2 images"),
    "tgi": (422, "at most 2 image(s)"),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_more_images_than_allowed_are_refused_with_the_number(shared: Simulated, profile: str) -> None:
    status, said = IMAGES.get(profile, (400, "at most 2 images"))
    with told(shared, profile=profile, max_images=2):
        assert ask(shared, body_of(images=2)).status == 200
        refused = ask(shared, body_of(images=3))
    assert (refused.status, said in words(refused)) == (status, True)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_body_that_is_too_large_gets_413_and_from_a_proxy_a_page(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, max_body_bytes=1000):
        assert ask(shared, body_of()).status == 200
        refused = ask(shared, body_of("x" * 1000))
    assert refused.status == 413
    assert refused.headers["content-type"].startswith(
        {"vllm": "text/html", "tgi": "text/plain"}.get(profile, "application/json")
    )
    assert b"too large" in refused.data.lower() or b"limit exceeded" in refused.data


PROMPT = {
    "together": (400, "The input (3219 tokens) is longer than the model's context length (3000 tokens)."),
    "openai": (
        400,
        "This model's maximum context length is 3000 tokens. However, your messages resulted in 3219 tokens.",
    ),
    "azure": (
        400,
        "This model's maximum context length is 3000 tokens. However, your messages resulted in 3219 tokens.",
    ),
    "fireworks": (400, "The prompt is too long: 3219, model maximum context length: 3000"),
    "groq": (400, "Please reduce the length of the messages or completion."),
    "openrouter": (400, "maximum context length is 3000 tokens. However, you requested about 3719 tokens"),
    "vllm": (400, "The decoder prompt (length 3219) is longer than the maximum model length of 3000"),
    "tgi": (422, "`inputs` must have less than 3000 tokens. Given: 3219"),
}
SUM = {
    "together": (400, "must be <= 4000. Given: 3219 `inputs` tokens and 900 `max_new_tokens`"),
    "openai": (400, "is 4000 tokens. However, you requested 4119 tokens (3219 in the messages, 900 in the completion)"),
    "azure": (400, "is 4000 tokens. However, you requested 4119 tokens (3219 in the messages, 900 in the completion)"),
    "groq": (400, "Please reduce the length of the messages or completion."),
    "openrouter": (400, "about 4119 tokens (3219 of text input, 900 in the output)"),
    "vllm": (400, "you requested 900 output tokens and your prompt contains at least 3219 input tokens"),
    "tgi": (422, "must be <= 4000. Given: 3219 `inputs` tokens and 900 `max_new_tokens`"),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_prompt_beyond_the_context_is_refused_in_the_providers_words(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, context_tokens=3000, context_clamps=True):
        refused = ask(shared, body_of("row1", images=2))
    assert (refused.status, PROMPT[profile][1] in words(refused)) == (PROMPT[profile][0], True), words(refused)
    if profile in {"openai", "azure", "groq"}:
        assert refused.said["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("profile", sorted(SUM))
def test_more_tokens_than_the_prompt_leaves_are_refused_in_the_providers_words(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, context_tokens=4000):
        assert ask(shared, body_of("row1", images=2, max_tokens=781)).status == 200
        refused = ask(shared, body_of("row1", images=2, max_tokens=900))
    assert (refused.status, SUM[profile][1] in words(refused)) == (SUM[profile][0], True), words(refused)


@pytest.mark.parametrize(("profile", "clamps"), [("together", True), ("fireworks", False)])
def test_an_answer_may_be_cut_where_the_context_ends(shared: Simulated, profile: str, *, clamps: bool) -> None:
    long = {"answer_tokens": {"median": 600}, "context_tokens": 3259, "context_clamps": clamps, "profile": profile}
    with told(shared, **long):
        replied = ask(shared, body_of("row1", images=2, max_tokens=900))
    assert replied.choice["finish_reason"] == "length"
    assert replied.said["usage"]["completion_tokens"] == 40


def test_a_request_without_max_tokens_is_cut_and_never_refused_for_what_it_did_not_ask(shared: Simulated) -> None:
    body = body_of("row1", images=2)
    del body["max_tokens"]
    with told(shared, context_tokens=3259, answer_tokens={"median": 600}):
        assert ask(shared, body).choice["finish_reason"] == "length"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_refused_response_format_is_named(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, structured="refused"):
        refused = ask(shared, body_of(response_format=BOOK.response_format()))
        assert ask(shared, body_of(response_format={"type": "text"})).status == 200
        assert ask(shared, body_of()).status == 200
    assert refused.status == (422 if profile == "tgi" else 400)
    assert b"json_schema" in refused.data
    assert b"response_format" in refused.data or b"response format" in refused.data


def test_an_ignored_response_format_has_no_influence_on_the_answer(shared: Simulated) -> None:
    other = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {}}}}}
    with told(shared, structured="ignored"):
        plain, asked = ask(shared, body_of()).content, ask(shared, body_of(response_format=other)).content
    assert plain == asked
    assert ask(shared, body_of(response_format=other)).content != plain


@pytest.mark.parametrize("structured", ["ignored", "enforced", "refused"])
def test_a_share_of_the_answers_that_nothing_holds_to_form_is_slightly_wrong(
    shared: Simulated, structured: str
) -> None:
    with told(shared, structured=structured, malformed_share=0.5):
        texts = [ask(shared, body_of(f"row {row}")).content for row in range(60)]
        again = [ask(shared, body_of(f"row {row}")).content for row in range(60)]
    errors = [READER.read(text).error for text in texts]
    wrong = [error for error in errors if error is not None]
    assert 15 <= len(wrong) <= 45
    assert {error.partition(":")[0] for error in wrong} == {"bad_value", "missing_key"}
    assert texts == again
    sound = [ask(shared, body_of(f"row {row}")).content for row in range(60)]
    assert [text for text, error in zip(texts, errors, strict=True) if error is None] == [
        text for text, error in zip(sound, errors, strict=True) if error is None
    ]


def test_an_enforced_schema_is_held_to_whatever_the_share_of_malformed_answers(shared: Simulated) -> None:
    with told(shared, malformed_share=1.0):
        assert READER.read(ask(shared, body_of(response_format=BOOK.response_format())).content).labels is not None
        assert READER.read(ask(shared, body_of()).content).labels is None


def test_a_request_to_mend_an_answer_gets_a_valid_one_always_the_same(shared: Simulated) -> None:
    with told(shared, structured="ignored", malformed_share=1.0, repair_marker="MEND THIS"):
        texts = [ask(shared, body_of("please MEND THIS: {}")).content for _ in range(2)]
        assert READER.read(ask(shared, body_of("MEND THIS", images=1)).content).labels is None
        assert READER.read(ask(shared, body_of("REWRITE")).content).labels is None
    assert texts[0] == texts[1]
    assert READER.read(texts[0]).labels is not None


MODELS = {
    "together": ("model_not_available", "Unable to access model m"),
    "openai": ("model_not_found", "The model `m` does not exist or you do not have access to it."),
    "azure": ("DeploymentNotFound", "The API deployment for this resource does not exist."),
    "fireworks": ("NOT_FOUND", "Model not found, inaccessible, and/or not deployed"),
    "groq": ("model_not_found", "The model `m` does not exist or you do not have access to it."),
    "openrouter": (404, "No endpoints found for m."),
    "vllm": (404, "The model `m` does not exist."),
    "tgi": (None, "The model `m` does not exist."),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_unknown_model_gets_404_in_the_providers_words(shared: Simulated, profile: str) -> None:
    code, said = MODELS[profile]
    with told(shared, profile=profile, known_models=["a", "b"]):
        refused = ask(shared, body_of())
        assert ask(shared, body_of(model="b")).status == 200
        assert [model["id"] for model in ask(shared, path="/v1/models").said["data"]] == ["a", "b"]
    assert (refused.status, said in words(refused)) == (404, True)
    inner = refused.said.get("error", refused.said)
    assert code == (inner.get("code") if isinstance(inner, dict) and "code" in inner else refused.said.get("code"))


QUOTAS = {
    "together": (402, "credit_limit"),
    "openai": (429, "insufficient_quota"),
    "azure": (429, "insufficient_quota"),
    "fireworks": (412, "PRECONDITION_FAILED"),
    "groq": (400, "blocked_api_access"),
    "openrouter": (402, "Insufficient credits"),
    "vllm": (402, "credit_limit"),
    "tgi": (402, "credit_limit"),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_spent_key_gets_the_providers_quota_form_and_others_go_on(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, keys_spent=["sk-poor"]):
        refused = ask(shared, body_of(), Authorization="Bearer sk-poor")
        assert ask(shared, body_of(), Authorization="Bearer sk-rich").status == 200
    status, said = QUOTAS[profile]
    assert (refused.status, said in refused.data.decode()) == (status, True)


TELLING = {
    "together": {
        "x-ratelimit-limit": "10",
        "x-ratelimit-remaining": "9",
        "x-ratelimit-reset": "0.00",
        "x-tokenlimit-limit": "1000",
        "x-tokenlimit-remaining": "482",
    },
    "openai": {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "60,000",
        "x-ratelimit-remaining-tokens": "59,482",
        "x-ratelimit-reset-tokens": "518ms",
    },
    "azure": {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "1",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "59482",
    },
    "fireworks": {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-limit-tokens-prompt": "60000",
        "x-ratelimit-remaining-tokens-generated": "59482",
        "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "59482",
    },
    "groq": {
        "x-ratelimit-limit-requests": "864000",
        "x-ratelimit-remaining-requests": "863999",
        "x-ratelimit-reset-requests": "0.1s",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "59482",
        "x-ratelimit-reset-tokens": "0.52s",
    },
}


def told_limits(replied: Replied) -> dict[str, str]:
    return {name: value for name, value in replied.headers.items() if "limit" in name or "retry" in name}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_completion_tells_the_limits_as_they_stand_if_that_provider_does(shared: Simulated, profile: str) -> None:
    with told(shared, profile=profile, requests_per_min=600.0, tokens_per_min=60_000.0):
        found = told_limits(ask(shared, body_of("row 1 of 9")))
    expected = TELLING.get(profile, {})
    assert bool(found) is bool(expected)
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        if "reset" in name:
            assert parse_span_s(found[name]) == pytest.approx(parse_span_s(value), abs=0.05)
        else:
            # A little is refilled between the request's arrival and its answer.
            assert float(found[name].replace(",", "")) == pytest.approx(float(value.replace(",", "")), abs=40)
            assert ("," in found[name]) is ("," in value)


def test_without_limits_no_header_tells_of_any(shared: Simulated) -> None:
    assert told_limits(ask(shared, body_of())) == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_nonsense_stands_in_all_headers_a_profile_sends_and_some_come_twice(shared: Simulated, profile: str) -> None:
    seen: set[str] = set()
    with told(shared, profile=profile, header_nonsense=True, requests_per_min=60.0):
        replies = [ask(shared, body_of(f"row {row}")) for row in range(20)]
    assert {replied.status for replied in replies} == {200, 429}
    twice = False
    for replied in replies:
        values = [(name, value) for name, value in replied.pairs if "limit" in name or "retry" in name]
        assert {value for _, value in values} <= set(NONSENSE)
        seen |= {value for _, value in values}
        twice = twice or len(values) > len(dict(values))
    if profile in TELLING:
        assert twice
        assert len(seen) > 8


def test_a_rate_refusal_says_what_that_provider_says(shared: Simulated) -> None:
    found = {}
    for profile in PROFILES:
        with told(shared, profile=profile, requests_per_min=60.0):
            refused = [ask(shared, body_of()) for _ in range(2)][1]
        assert refused.status == 429
        found[profile] = json.dumps(refused.said)
    assert '"error_type": "dynamic_request_limited"' in found["together"]
    assert '"code": "rate_limit_exceeded"' in found["openai"]
    assert "Please try again in" in found["groq"]
    assert "Please retry after" in found["azure"]
    assert '"error_type": "overloaded"' in found["tgi"]
