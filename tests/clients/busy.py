"""An upstream that is busy once, so that a client has to wait and ask again."""

import json

from tests.clients.drivers.content import BUSY_PROMPT
from tests.upstream import Connection, Request, Upstream

_HEADERS = {"content-type": "application/json", "retry-after": "1"}
_BODY = {"error": {"message": "Busy.", "type": "requests", "param": None, "code": "x"}}


def be_busy_once(upstream: Upstream) -> None:
    """Let OpenAI refuse the first `BUSY_PROMPT`; all else is answered as ever."""
    openai = upstream.openai
    refused = False

    async def answer(request: Request, connection: Connection) -> None:
        nonlocal refused
        if not refused and is_busy_prompt(request):
            refused = True
            await connection.answer(429, _HEADERS, json.dumps(_BODY).encode())
        else:
            await openai.answer(request, connection)

    openai.answer_with(answer)


def is_busy_prompt(request: Request) -> bool:
    """Whether a request asks `BUSY_PROMPT`."""
    return BUSY_PROMPT.encode() in request.body
