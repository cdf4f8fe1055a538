"""Whether the server stays as it is: over many calls, and beside callers that hurt it.

`python -m tests.soak` (`make soak`) starts the mock upstream and the real server, and
prints one table. Its exit status is 1 when something that must hold does not.

    endurance   ten thousand mixed calls with a thousand keys, 16 at a time
    slow        callers that do not read a large stream
    isolation   calls to one vendor while another hangs and a third refuses keys
    leaving     callers that go away: when the upstream sees its connection closed
    keys        what the process still refers to when all calls are over
    fuzz        the fuzz of the tests, with more examples

Times have no bound but that of callers that leave: a busy machine makes them long.
"""
