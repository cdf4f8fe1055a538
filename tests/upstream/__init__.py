"""A loopback upstream that speaks the dialects of OpenAI, Gemini and Anthropic.

It stands where the vendors stand: three listening ports of the loopback interface, one
a vendor, with the paths, errors, headers and peculiarities that the vendors have. In a
test it runs in a thread and records what it receives; on its own,
`python -m tests.upstream` prints the variables that point the server at it.

What decides the answer is the key and the model's name:

=================  ====================================================================
key                answer
=================  ====================================================================
none               the vendor's own error for a missing key
contains `wrong`   the vendor's own error for a bad key
any other          the key is accepted
=================  ====================================================================

=================  ====================================================================
model              answer
=================  ====================================================================
a known one        `MODEL heard: PROMPT`, with the number of images seen
`rate-limited`     429, with `retry-after: 1` where the vendor sends it
`overloaded`       503; 529 from Anthropic
`server-error`     500
`breaks-off`       the connection is reset: a stream after half of its events, anything
                   else before the answer
any other          404, unknown model
=================  ====================================================================

A request with tools is answered by a call of the tool it forces, otherwise of the first
one, and a request that ends with a tool's result by `MODEL read: RESULT`. Structured
output follows the schema, with made-up values.

For anything else a test scripts the bytes::

    async def answer(request: Request, connection: Connection) -> None:
        await connection.head(200, {"content-type": "text/event-stream"})
        connection.reset()

    upstream.openai.answer_with(answer)
"""

from tests.upstream.gate import Gate
from tests.upstream.upstream import Upstream, in_background
from tests.upstream.vendor import Handler, Vendor
from tests.upstream.wire import Connection, Headers, Request

__all__ = [
    "Connection",
    "Gate",
    "Handler",
    "Headers",
    "Request",
    "Upstream",
    "Vendor",
    "in_background",
]
