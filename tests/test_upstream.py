"""The mock upstream keeps to what is known of the three vendors."""

import json
from typing import Any, Protocol

import httpx
import pytest

from tests.upstream import Upstream
from tests.upstream.gemini import thought_signature

type Json = dict[str, Any]

CHAT_PATHS = {
    "OpenAI": "/v1/chat/completions",
    "Gemini": "/v1beta/openai/chat/completions",
    "Anthropic": "/v1/chat/completions",
}
MODELS = {
    "OpenAI": "gpt-4o",
    "Gemini": "gemini-2.5-flash-lite",
    "Anthropic": "claude-haiku-4-5-20251001",
}
VENDORS = list(CHAT_PATHS)
HELLO: Json = {"messages": [{"role": "user", "content": "hello"}]}
WEATHER: Json = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS: Json = HELLO | {"tools": [{"type": "function", "function": WEATHER}]}
CITY_SCHEMA: Json = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": WEATHER["parameters"]},
}


class Post(Protocol):
    """Sends a body to a vendor, at its chat path unless another one is given."""

    def __call__(
        self, vendor: str, body: Json, *, path: str = ..., key: str | None = ...
    ) -> httpx.Response:
        """Send it, with the vendor's model unless the body names another."""


@pytest.fixture
def post(upstream: Upstream, http: httpx.Client) -> Post:
    """A way to call the vendors directly."""

    def send(
        vendor: str, body: Json, *, path: str = "", key: str | None = "a key"
    ) -> httpx.Response:
        address = f"http://127.0.0.1:{upstream.named(vendor).port}"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        sent = {"model": MODELS[vendor]} | body
        return http.post(
            address + (path or CHAT_PATHS[vendor]), json=sent, headers=headers
        )

    return send


def _chunks(response: httpx.Response) -> list[Json]:
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _error(response: httpx.Response) -> Json:
    body = response.json()
    error: Json = (body[0] if isinstance(body, list) else body)["error"]
    return error


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_chat_is_answered_at_the_vendors_own_path(post: Post, vendor: str) -> None:
    """The model repeats the prompt, so that it is seen to have arrived."""
    response = post(vendor, HELLO)

    answer = response.json()["choices"][0]["message"]["content"]
    assert (200, f"{MODELS[vendor]} heard: hello") == (response.status_code, answer)


@pytest.mark.parametrize(
    ("vendor", "path"),
    [
        ("OpenAI", "/chat/completions"),
        ("Gemini", "/v1beta/openai/v1/chat/completions"),
        ("Anthropic", "/v1beta/openai/chat/completions"),
    ],
)
def test_another_path_is_not_found(post: Post, vendor: str, path: str) -> None:
    """A base URL that is put together wrongly does not get an answer."""
    assert post(vendor, HELLO, path=path).status_code == 404


def test_openais_bad_key_error_echoes_the_masked_key(post: Post) -> None:
    """OpenAI answers 401 with `invalid_api_key`, and the status in the body."""
    response = post("OpenAI", HELLO, key="sk-wrong-0123456789")

    expected = {
        "error": {
            "message": "Incorrect API key provided: sk-wrong********6789.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        },
        "status": 401,
    }
    assert (401, expected) == (response.status_code, response.json())


def test_geminis_bad_key_error_is_an_array_with_status_400(post: Post) -> None:
    """Gemini answers 400 with Google's error as the only element of an array."""
    response = post("Gemini", HELLO, key="wrong")

    error = {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
        ],
    }
    assert (400, [{"error": error}]) == (response.status_code, response.json())


def test_anthropics_bad_key_error_tells_its_kind_in_the_code(
    post: Post,
) -> None:
    """Anthropic answers 401 in OpenAI's form."""
    response = post("Anthropic", HELLO, key="wrong")

    error = {
        "message": "Invalid Anthropic API Key",
        "type": "invalid_request_error",
        "param": None,
        "code": "authentication_error",
    }
    assert (401, {"error": error}) == (response.status_code, response.json())


@pytest.mark.parametrize(
    ("vendor", "status"), [("OpenAI", 401), ("Gemini", 400), ("Anthropic", 401)]
)
def test_a_missing_key_is_refused(post: Post, vendor: str, status: int) -> None:
    """Without `Authorization` the vendor's own error comes back."""
    assert status == post(vendor, HELLO, key=None).status_code


@pytest.mark.parametrize(
    ("vendor", "model", "status", "kind"),
    [
        ("OpenAI", "rate-limited", 429, "rate_limit_exceeded"),
        ("Gemini", "rate-limited", 429, "RESOURCE_EXHAUSTED"),
        ("Anthropic", "rate-limited", 429, "rate_limit_error"),
        ("OpenAI", "overloaded", 503, None),
        ("Gemini", "overloaded", 503, "UNAVAILABLE"),
        ("Anthropic", "overloaded", 529, "overloaded_error"),
        ("OpenAI", "no-such-model", 404, "model_not_found"),
        ("Gemini", "no-such-model", 404, "NOT_FOUND"),
        ("Anthropic", "no-such-model", 404, "not_found_error"),
    ],
)
def test_the_models_name_asks_for_an_error(
    post: Post, vendor: str, model: str, status: int, kind: str | None
) -> None:
    """Each error has the vendor's status and its name for it."""
    response = post(vendor, HELLO | {"model": model})

    error = _error(response)
    told = error.get("code") if vendor != "Gemini" else error["status"]
    assert (status, kind) == (response.status_code, told)


@pytest.mark.parametrize(
    ("vendor", "expected"),
    [
        (
            "OpenAI",
            {"x-request-id", "retry-after", "retry-after-ms", "x-ratelimit-*"},
        ),
        ("Gemini", set()),
        ("Anthropic", {"request-id", "retry-after", "x-ratelimit-*"}),
    ],
)
def test_a_rate_limit_tells_what_the_vendor_tells(
    post: Post, vendor: str, expected: set[str]
) -> None:
    """OpenAI and Anthropic say when to come back and who asked, Gemini does not."""
    response = post(vendor, HELLO | {"model": "rate-limited"})

    names = {
        "x-ratelimit-*" if name.startswith("x-ratelimit-") else name
        for name in response.headers
    }
    telling = {"x-request-id", "request-id", "x-ratelimit-*"}
    telling |= {"retry-after", "retry-after-ms"}
    assert expected == names & telling


@pytest.mark.parametrize("vendor", ["OpenAI", "Anthropic"])
def test_stream_usage_is_an_extra_chunk_when_asked_for(post: Post, vendor: str) -> None:
    """The last chunk before `[DONE]` has usage and no choices."""
    asked = HELLO | {"stream": True, "stream_options": {"include_usage": True}}

    *others, last = _chunks(post(vendor, asked))
    unasked = _chunks(post(vendor, HELLO | {"stream": True}))

    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 4)
    assert {chunk["usage"] for chunk in others} == {None}
    assert not any("usage" in chunk for chunk in unasked)


def test_geminis_stream_has_gaps_and_usage_unasked(post: Post) -> None:
    """Chunks without `id`, `finish_reason` at the end only, usage beside choices."""
    chunks = _chunks(post("Gemini", HELLO | {"stream": True}))

    shape = [
        ("id" in chunk, "finish_reason" in chunk["choices"][0], "usage" in chunk)
        for chunk in chunks
    ]
    assert shape == [(True, False, True), (False, False, True), (True, True, True)]


@pytest.mark.parametrize(
    "unknown",
    [{"seed": None}, {"store": False}, {"frequency_penalty": 0}, {"google": {}}],
)
def test_gemini_refuses_unknown_names(post: Post, unknown: Json) -> None:
    """A name that Gemini does not know is 400, even with null."""
    response = post("Gemini", HELLO | unknown)

    (name,) = unknown
    expected = f'Invalid JSON payload received. Unknown name "{name}": '
    expected += "Cannot find field."
    assert (400, expected) == (response.status_code, _error(response)["message"])


def test_gemini_takes_a_literal_extra_body(post: Post) -> None:
    """`extra_body` is a field of Gemini's protocol, not of a client."""
    extra = {"extra_body": {"google": {"cached_content": "x"}}}

    assert post("Gemini", HELLO | extra).status_code == 200


@pytest.mark.parametrize(
    ("signature", "status"),
    [(thought_signature("weather"), 200), ("forged", 400), (None, 400)],
)
def test_geminis_thought_signature_must_come_back(
    post: Post, signature: str | None, status: int
) -> None:
    """The second turn of a tool call is refused without the first one's signature."""
    first = post("Gemini", TOOLS).json()["choices"][0]["message"]
    call = first["tool_calls"][0]
    assert {"thought_signature": thought_signature("weather")} == (
        call["extra_content"]["google"]
    )
    call["extra_content"] = {"google": {"thought_signature": signature}}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}

    second = TOOLS | {"messages": [*HELLO["messages"], first, result]}

    assert status == post("Gemini", second).status_code


@pytest.mark.parametrize(
    ("model", "index", "call_id"),
    [
        ("gemini-2.5-flash-lite", None, "call_weather"),
        ("gemini-3.5-flash-lite", 0, ""),
    ],
)
def test_geminis_streamed_tool_call_lacks_index_or_id(
    post: Post, model: str, index: int | None, call_id: str
) -> None:
    """One model leaves `index` out, the other sends an empty `id`."""
    response = post("Gemini", TOOLS | {"model": model, "stream": True})

    call = _chunks(response)[0]["choices"][0]["delta"]["tool_calls"][0]
    assert (index, call_id) == (call.get("index"), call["id"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_tools_result_is_read(post: Post, vendor: str) -> None:
    """The second turn of a tool call ends in a text with the tool's result."""
    first = post(vendor, TOOLS).json()["choices"][0]["message"]
    call_id = first["tool_calls"][0]["id"]
    result = {"role": "tool", "tool_call_id": call_id, "content": "rain"}

    second = TOOLS | {"messages": [*HELLO["messages"], first, result]}
    answer = post(vendor, second).json()["choices"][0]["message"]

    assert f"{MODELS[vendor]} read: rain" == answer["content"]


def test_a_streamed_tool_call_adds_up(post: Post) -> None:
    """The parts of the arguments make the JSON that a regular answer has."""
    chunks = _chunks(post("OpenAI", TOOLS | {"stream": True}))

    calls = [
        call
        for chunk in chunks
        for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert (
        calls[0]["id"],
        json.loads(arguments),
    ) == ("call_weather", {"city": "Paris"})


@pytest.mark.parametrize(
    ("vendor", "answer"),
    [
        ("OpenAI", '{"city": "Paris"}'),
        ("Gemini", '{"city": "Paris"}'),
        ("Anthropic", "claude-haiku-4-5-20251001 heard: hello"),
    ],
)
def test_structured_output_follows_the_schema(
    post: Post, vendor: str, answer: str
) -> None:
    """Anthropic ignores `response_format`, the others keep to the schema."""
    response = post(vendor, HELLO | {"response_format": CITY_SCHEMA})

    assert answer == response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_image_is_seen(post: Post, vendor: str) -> None:
    """Image parts are taken and counted."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "look"}, image]
    seen = post(vendor, {"messages": [{"role": "user", "content": content}]})

    answer = seen.json()["choices"][0]["message"]["content"]
    assert f"{MODELS[vendor]} heard: look (1 images)" == answer


@pytest.mark.parametrize(
    ("vendor", "status"), [("OpenAI", 200), ("Gemini", 200), ("Anthropic", 400)]
)
def test_anthropic_gives_one_choice_only(post: Post, vendor: str, status: int) -> None:
    """`n` must be 1 at Anthropic."""
    assert status == post(vendor, HELLO | {"n": 2}).status_code


def test_openai_embeds(post: Post) -> None:
    """One vector for each input, of the size asked for."""
    body = {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 3}
    response = post("OpenAI", body, path="/v1/embeddings")

    vectors = [item["embedding"] for item in response.json()["data"]]
    assert vectors == [[0.0, 0.125, 0.25], [0.125, 0.25, 0.375]]


def test_openai_completes(post: Post) -> None:
    """The old completions have their text in `choices[].text`, streamed as well."""
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"}
    path = "/v1/completions"

    whole = post("OpenAI", body, path=path).json()
    chunks = _chunks(post("OpenAI", body | {"stream": True}, path=path))

    streamed = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    expected = "gpt-3.5-turbo-instruct heard: hello"
    assert (expected, expected) == (whole["choices"][0]["text"], streamed)
