"""Anthropic, through its OpenAI-compatible endpoint."""

import secrets

from tests.upstream.dialect import Dialect, error_body, openai_error
from tests.upstream.refusal import Reason, RefusalError
from tests.upstream.reply import Json, Reply
from tests.upstream.saying import Saying, say

# Status, code and message of each error; {} is what it is about.
_ERRORS: dict[Reason, tuple[int, str, str]] = {
    Reason.MISSING_KEY: (401, "authentication_error", "x-api-key header is required"),
    Reason.WRONG_KEY: (401, "authentication_error", "Invalid Anthropic API Key"),
    Reason.RATE_LIMITED: (429, "rate_limit_error", "Rate limit of {} exceeded."),
    Reason.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Reason.SERVER_ERROR: (500, "api_error", "Internal server error"),
    Reason.UNKNOWN_MODEL: (404, "not_found_error", "model: {}"),
    Reason.UNKNOWN_PATH: (404, "not_found_error", "Not found: {}"),
    Reason.BROKEN_BODY: (400, "invalid_request_error", "The body is not valid JSON"),
    Reason.INVALID_REQUEST: (400, "invalid_request_error", "{}"),
}


class Anthropic(Dialect):
    """Anthropic: takes one choice only and ignores what it does not know."""

    name = "Anthropic"
    models = ("claude-haiku-4-5-20251001", "claude-haiku-4-5")

    def headers(self, media_type: str) -> dict[str, str]:
        """A request id under Anthropic's name, and rate limits under OpenAI's."""
        return {
            "content-type": media_type,
            "request-id": f"req_{secrets.token_hex(12)}",
            "x-ratelimit-limit-requests": "4000",
            "x-ratelimit-remaining-requests": "3999",
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-organization-id": "loopback",
            "server": "cloudflare",
        }

    def refuse(self, refusal: RefusalError) -> Reply:
        """Anthropic's error in OpenAI's form: what it is stands in `code`."""
        status, code, message = _ERRORS[refusal.reason]
        text = message.format(refusal.detail)
        error = openai_error(text, "invalid_request_error", code)
        if refusal.reason is Reason.RATE_LIMITED:
            return error_body(error, status, retry_after="1")
        return error_body(error, status)

    def check(self, body: Json) -> None:
        """Refuse more than one choice; everything else unknown is ignored."""
        if body.get("n") not in {None, 1}:
            raise RefusalError(Reason.INVALID_REQUEST, "n: must be 1")

    def say(self, body: Json) -> Saying:
        """What the model says: `response_format` is ignored."""
        return say(body, keeps_to_schema=False)
