"""A log that cannot be written is dropped and counted; nothing waits for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lls_openai.server.log_writer import LogWriter
from tests.support.http import MODELS, eventually
from tests.support.run_yaml import RUN_YAML, VARIABLE
from tests.support.server import clean_environment, free_port, listens

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


@contextmanager
def serving(stderr: int, *, text: bool) -> Iterator[httpx.Client]:
    """A server with this standard error, and one connection to it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "lls_openai", str(RUN_YAML), "--port", str(port)],
        env=clean_environment()
        | {f"{VARIABLE}_LOG_FORMAT": "text" if text else "json"},
        stderr=stderr,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: listens(port), "the server listens", 60)
        with httpx.Client(base_url=url, trust_env=False, timeout=5) as client:
            yield client
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_stalled_reader_stops_neither_requests_nor_a_shutdown(
    pipe: tuple[int, int],
) -> None:
    """The pipe is full after half of the requests."""
    reader, writer = pipe
    with serving(writer, text=False) as client:
        for _ in range(500):
            assert client.get("/v1/health").status_code == 200
        assert client.get(MODELS).status_code == 200
    os.close(writer)

    lines = b"".join(iter(lambda: os.read(reader, 65_536), b"")).splitlines()
    assert {json.loads(line)["level"] for line in lines} == {"info"}


def test_full_disk_breaks_no_connection() -> None:
    with (
        Path("/dev/full").open("wb") as full,
        serving(full.fileno(), text=True) as client,
    ):
        responses = [client.get("/v1/health") for _ in range(3)]
        ports = {
            r.extensions["network_stream"].get_extra_info("client_addr")
            for r in responses
        }

    assert [response.status_code for response in responses] == [200, 200, 200]
    assert len(ports) == 1
