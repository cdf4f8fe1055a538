"""Whether the server stays as it is: over many calls, and beside callers that hurt it.

`python -m tests.soak` (`make soak`) starts the mock upstream and the real server, and
prints a table: what was done and looked at, what was measured, its bound, and whether
that holds. The exit status is 1 when one does not.
"""
