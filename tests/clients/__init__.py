"""Clients that others wrote, driven against the real server.

`make clients`, or `python -m tests.clients` in the project's folder. Each is installed
into a temporary directory: no other part of the tests needs a package registry. What is
asked of each stands here, for drivers in environments of their own as well.
"""

PROMPT = "Say hello."
RESULT = "It is sunny."
# The parameters of the tool `weather`, whose result is RESULT.
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
