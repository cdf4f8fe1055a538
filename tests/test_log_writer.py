"""A log that cannot be written is dropped and counted; nothing waits for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from lls_openai.server.log_writer import LogWriter
from tests.support.http import MODELS
from tests.support.run_yaml import VARIABLE
from tests.support.server import Server

# Of 256 bytes: a pipe of Linux holds 256 of them.
LINE = b"x" * 255 + b"\n"
# More than the limit of waiting lines and the pipe hold together.
MANY = 5_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            # The test has closed it.
            continue


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = LogWriter(writer)
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines:
        log.write(line)
    log.flush()

    assert os.read(reader, 100_000) == b"".join(lines)
    assert log.dropped_lines == 0


def test_stalled_reader_drops_lines_but_none_of_those_that_fit(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    log = LogWriter(writer)
    start = time.monotonic()
    for _ in range(MANY):
        log.write(LINE)

    assert time.monotonic() - start < 1
    assert log.dropped_lines > 0
    expected = (MANY - log.dropped_lines) * len(LINE)
    received = 0
    while received < expected:
        data = os.read(reader, 65_536)
        received += len(data)
        assert data.count(b"\n") == len(data) / len(LINE)
    log.write(b"again\n")
    log.flush()
    assert os.read(reader, 65_536) == b"again\n"


def test_lines_to_a_reader_that_died_are_dropped_and_counted(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    os.close(reader)
    log = LogWriter(writer)
    for _ in range(10):
        log.write(LINE)
    log.flush()

    assert log.dropped_lines == 10


def test_lines_to_a_full_disk_are_dropped_and_counted() -> None:
    with Path("/dev/full").open("wb") as full:
        log = LogWriter(full.fileno())
        log.write(LINE)
        log.flush()

    assert log.dropped_lines == 1


def test_full_pipe_of_another_process_in_nonblocking_mode_is_waited_for(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    log = LogWriter(writer)
    for _ in range(512):
        log.write(LINE)

    received = 0
    while received < 512 * len(LINE):
        received += len(os.read(reader, 4096))
    assert log.dropped_lines == 0


WRITE_A_LINE = """
import sys
from lls_openai.server.log_writer import STANDARD_ERROR
STANDARD_ERROR.write(b"a last line\\n")
"""
# Another library's output, which stays in Python's buffer.
FAIL_TO_PRINT = """
try:
    print("unwritten", file=sys.stderr)
except OSError:
    pass
"""


def test_last_line_is_written_before_the_process_exits() -> None:
    command = [sys.executable, "-c", WRITE_A_LINE]

    done = subprocess.run(command, capture_output=True, check=True, timeout=30)

    assert done.stderr == b"a last line\n"


def test_full_disk_does_not_change_the_exit_status() -> None:
    command = [sys.executable, "-c", WRITE_A_LINE + FAIL_TO_PRINT]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stderr=full, check=False, timeout=30)

    assert done.returncode == 0


def server_with_stderr(redirection: str, **env: str) -> pytest.MarkDecorator:
    """Return a mark for a server that a shell starts, with this standard error."""
    prefix = "sh", "-c", f'{redirection}; exec "$@"', "sh"
    return pytest.mark.server(as_module=True, prefix=prefix, env=env)


# Opened for reading as well, since it would wait for a reader otherwise.
@server_with_stderr("mkfifo log; exec 3<>log 2>log")
def test_stalled_reader_stops_neither_requests_nor_a_shutdown(server: Server) -> None:
    """The pipe is full after half of the requests."""
    reader = os.open(server.files / "work/log", os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(500):
        assert server.client.get("/v1/health").status_code == 200
    assert server.client.get(MODELS).status_code == 200
    os.kill(server.pid, SIGTERM)
    assert server.wait_exit() == 0

    lines = b"".join(iter(lambda: os.read(reader, 65_536), b"")).splitlines()
    os.close(reader)
    assert {json.loads(line)["level"] for line in lines} == {"info"}


@server_with_stderr("exec 2>/dev/full", **{f"{VARIABLE}_LOG_FORMAT": "text"})
def test_full_disk_breaks_no_connection(server: Server) -> None:
    responses = [server.client.get("/v1/health") for _ in range(3)]
    os.kill(server.pid, SIGTERM)
    assert server.wait_exit() == 0

    ports = {
        each.extensions["network_stream"].get_extra_info("client_addr")
        for each in responses
    }
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert len(ports) == 1
