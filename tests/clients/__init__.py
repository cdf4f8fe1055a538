"""OpenAI clients that others wrote, driven against the real server.

`make clients`, or `python -m tests.clients` in the project's folder. Each client is
installed into an environment of its own, in a temporary directory: this is the only
part of the tests that needs a package registry.
"""
