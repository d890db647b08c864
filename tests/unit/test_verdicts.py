"""What known responses of real providers become, case by case, through the door the client uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from engine import errors, providers
from engine.errors import ApiError, BadReply, LaneRefused, RateLimited, RequestBlocked, RequestTooLarge, ServerError
from engine.hints import rate_hint, rate_names
from engine.prices import price_of
from engine.providers import VERDICTS
from engine.replies import Response, reply_from
from engine.secret import Secret
from engine.types import RateHint, Reply, Usage
from engine.verdicts import MAX_MESSAGE_CHARS, Said, _fits, error_for, one_line, said_in

FOLDER = Path(__file__).parent.parent / "data" / "providers"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CASES = {f"{name}: {case['name']}": (said["base_url"], case) for name, said in FILES.items() for case in said["cases"]}


def outcome(base_url: str, case: dict[str, Any]) -> Reply | ApiError:
    body = case["body"]
    payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    response = Response(status=case["status"], headers=CIMultiDict(case["headers"]), payload=payload)
    try:
        return reply_from(response, names=rate_names(base_url))
    except ApiError as error:
        return error


@pytest.mark.parametrize(("base_url", "case"), CASES.values(), ids=CASES)
def test_a_known_response_becomes_what_it_means(base_url: str, case: dict[str, Any]) -> None:
    found = outcome(base_url, case)
    assert type(found).__name__ == case["verdict"]
    hint = rate_hint(CIMultiDict(case["headers"]), rate_names(base_url))
    assert hint == (RateHint(**case["rate_hint"]) if "rate_hint" in case else None)
    if isinstance(found, Reply):
        assert found.hint == hint
        assert found.text == case.get("text", found.text)
        return
    for name in ("fix", "limit", "counted", "doubtful", "paid"):
        if name in case:
            assert getattr(found, name) == case[name], name
    if "retry_after_s" in case:
        assert found.retry_after_s == pytest.approx(case["retry_after_s"])
    if case["status"] != 200:
        assert found.status == case["status"]
        assert str(found).startswith(f"HTTP {case['status']}: ")
    assert str(found) == case.get("message", str(found))


def test_every_provider_known_by_its_errors_is_here_with_a_date() -> None:
    known = "azure fastapi fireworks groq nim openai openrouter proxy sglang tgi together vllm"
    assert list(FILES) == known.split()
    assert {said["checked"] for said in FILES.values()} == {"2026-11"}


def test_every_class_of_error_that_a_response_can_be_is_covered() -> None:
    network = {"ApiError", "NetworkError", "CallTimeout", "CertificateError"}
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ApiError)}
    assert {case["verdict"] for _, case in CASES.values()} == (classes - network) | {"Reply"}


def test_every_rule_of_the_table_decides_a_case() -> None:
    """A rule that none needs is a rule that none has checked."""
    decided = set()
    for _, case in CASES.values():
        said = said_in(case["body"].encode() if isinstance(case["body"], str) else json.dumps(case["body"]).encode())
        status = said.status or 200 if case["status"] == 200 else case["status"]
        decided |= {next((at for at, rule in enumerate(VERDICTS) if _fits(rule, status, said)), None)}
    assert set(range(len(VERDICTS))) <= decided


def test_the_code_inside_a_200_decides() -> None:
    classes = {429: RateLimited, 503: ServerError, 402: LaneRefused, 413: RequestTooLarge}
    for code, kind in classes.items():
        error = error_for(200, Said(message="words", code=str(code)))
        assert type(error) is kind
        assert error.status == code
        assert str(error) == "HTTP 200 with an error inside: words"
        assert error.paid


@pytest.mark.parametrize("code", ["", "399", "600", "4290", "rate_limit_exceeded", "-429", "4.9"])
def test_a_code_inside_a_200_that_is_no_status_is_a_bad_reply(code: str) -> None:
    error = error_for(200, Said(message="words", code=code))
    assert type(error) is BadReply
    assert error.status == 200


def test_what_an_error_inside_a_200_took_is_known_where_it_says_so() -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=2)
    for code in ("429", "402", "400", "413", "502", "x"):
        error = error_for(200, Said(message="words", code=code, usage=usage))
        assert (error.usage, error.paid) == (usage, False)


def test_a_refusal_of_the_model_is_paid_work_with_the_words_of_the_model() -> None:
    _, case = CASES["openai: refusal"]
    error = outcome("https://api.openai.com/v1", case)
    assert isinstance(error, RequestBlocked)
    assert str(error) == "HTTP 200 with a refusal: I cannot help with that."
    assert error.usage == Usage(prompt_tokens=100, completion_tokens=3)


def test_what_an_error_says_is_read_wherever_it_stands() -> None:
    body = {
        "error": {
            "code": 429,
            "type": "requests",
            "param": "messages",
            "message": "outer",
            "metadata": {"limit_source": "source", "raw": '{"error":{"message":"inner"}}', "headers": {"X-Y": 5}},
        },
        "error_type": "dynamic_request_limited",
        "usage": {"prompt_tokens": 5, "completion_tokens": 0},
    }
    said = said_in(json.dumps(body).encode())
    assert said == Said(
        message="outer: inner",
        code="429",
        kind="requests dynamic_request_limited",
        param="messages",
        limit_source="source",
        usage=Usage(prompt_tokens=5, completion_tokens=0),
        headers={"x-y": "5"},
    )
    assert said.status == 429


@pytest.mark.parametrize("place", ["message", "code", "type", "param", "raw"])
def test_no_part_of_a_key_passes_the_cut_of_any_text(place: str) -> None:
    key = Secret("sk-0123456789abcdef")
    for before in (190, 290, 1990, 3990):
        text = "x" * before + key.reveal() + "y" * 5000
        error: dict[str, Any] = {"message": "words", place: text}
        error["metadata"] = {"raw": error.pop("raw", None), "headers": {"a": text}}
        said = said_in(json.dumps({"error": error}).encode(), show=lambda words: one_line(words, key))
        assert "sk-0" not in repr(said)


def test_a_message_stays_short_with_all_that_is_put_before_it() -> None:
    for status in (200, 400, 429, 500):
        assert len(str(error_for(status, Said(message="x" * MAX_MESSAGE_CHARS)))) == MAX_MESSAGE_CHARS


def test_without_words_the_reason_phrase_speaks() -> None:
    assert str(error_for(503, Said(), otherwise="Service Unavailable")) == "HTTP 503: Service Unavailable"
    assert str(error_for(503, Said())) == "HTTP 503: no message"


@pytest.mark.parametrize(
    ("base_url", "model", "dollars"),
    [
        ("https://api.together.xyz/v1", "meta-llama/Llama-4-Scout-17B-16E-Instruct", (0.18, 0.59)),
        ("https://api.together.ai/v1/", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", (0.27, 0.85)),
        ("https://api.openai.com/v1", "gpt-4o-mini", (0.15, 0.60)),
        ("https://api.openai.com/v1", "gpt-4o-mini-2024-07-18", (0.15, 0.60)),
        ("https://api.openai.com/v1", "gpt-4.1", (2.00, 8.00)),
        ("https://api.openai.com/v1", "gpt-5.4-mini", (0.75, 4.50)),
        ("https://api.groq.com/openai/v1", "meta-llama/llama-4-scout-17b-16e-instruct", (0.11, 0.34)),
        ("https://api.openai.com/v1", "gpt-4o-2024-05-13", None),
        ("https://api.openai.com/v1", "gpt-4x1", None),
        ("https://eu.api.openai.com/v1", "gpt-4.1", None),
        ("https://api.openai.com.example.org/v1", "gpt-4.1", None),
        ("http://127.0.0.1:8000/v1", "gpt-4.1", None),
        ("http://localhost:8000/v1", "meta-llama/Llama-4-Scout-17B-16E-Instruct", None),
    ],
)
def test_a_price_is_known_for_an_address_and_a_model_or_not_at_all(
    base_url: str, model: str, dollars: tuple[float, float] | None
) -> None:
    price = price_of(base_url, model)
    assert (price and (price.input_usd_per_m, price.output_usd_per_m)) == dollars
    assert price is None or "2025-01" <= price.checked <= "2026-11"


def test_each_price_belongs_to_one_line_only_and_input_is_the_cheaper_part() -> None:
    for listed in providers.PRICES:
        assert len({name for name, _, _ in listed.prices}) == len(listed.prices)
        assert all(0 < input_usd <= output_usd for _, input_usd, output_usd in listed.prices)
        assert listed.as_of <= listed.checked
