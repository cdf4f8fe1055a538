"""The bench's own parts: what they send, see and print."""

import asyncio
import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from tests.bench import __main__ as program
from tests.bench import payloads, profiling, targets
from tests.bench.caller import Connection, Stream, connect
from tests.bench.rounds import Held, Round
from tests.bench.table import Result, table
from tests.bench.targets import Target
from tests.bench.wrk import Wrk
from tests.server import RUN_YAML

WRK = """\
#!/bin/sh
for argument; do echo "$argument" >> {log}; done
echo 'Requests/sec: 200'
echo '{{"calls": 600, "failed": 100, "seconds": 2.5, "p50": 0.004}}'
"""
HELD = Held(whole=500, at_once=500, kib=20, cpu=0.0001)
RESULTS = {
    "direct": Result(Round(40000, 0.00002, 0.00004, 500, 0.0002), 1, HELD),
    "bare": Result(Round(2000, 0.0005, 0.0006, 200, 0.001), 1, HELD),
    "stock": Result(Round(20, 0.05, 0.05, 5, 0.06), 2, held=None),
    "this": Result(Round(1500, 0.0006, 0.0008, 160, 0.0011), 1, HELD),
}
TABLE = """\
                                           direct   bare  stock   this
16 connections         calls/s              40000   2000     20   1500
                       CPU, ms/call          0.02   0.50  50.00   0.60
1 connection           p50, ms               0.04   0.60  50.00   0.80
streams of 200 chunks  streams/s            500.0  200.0    5.0  160.0
first chunk            p50, ms               0.20   1.00  60.00   1.10
slow stream            most events a read       1      1      2      1
500 slow streams       complete, in order     500    500      -    500
                       open at once           500    500      -    500
                       KiB/stream              20     20      -     20
                       CPU, ms/chunk        0.100  0.100      -  0.100
"""


@pytest.fixture(scope="module")
def direct() -> Iterator[Target]:
    """The bench's upstream."""
    with targets.direct() as running:
        yield running


@pytest.fixture(scope="module")
def bare(direct: Target) -> Iterator[Target]:
    """The bare relay in front of it."""
    with targets.bare(direct.url) as running:
        yield running


@pytest.fixture(params=["direct", "bare"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each of the two."""
    return cast("Target", request.getfixturevalue(request.param))


@pytest.fixture
def fake_wrk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wrk that counts nothing; in the file returned are its arguments."""
    (tmp_path / "wrk").write_text(WRK.format(log=tmp_path / "arguments"))
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path / "arguments"


def test_a_regular_call_is_answered_the_same_direct_and_through_bare(
    target: Target,
) -> None:
    """The relay changes neither the status nor the body."""
    caller = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=10)
    body = payloads.request_body("regular")
    caller.request("POST", payloads.PATH, body, payloads.HEADERS)
    answer = caller.getresponse()
    seen = (answer.status, answer.getheader("Content-Type"), answer.read())
    caller.close()
    assert (200, "application/json", payloads.regular_answer()) == seen


@pytest.mark.parametrize("kind", ["burst", "first"])
def test_a_stream_is_the_same_direct_and_through_bare(
    target: Target, kind: str
) -> None:
    """A burst and a paced stream arrive as the upstream wrote them."""
    stream = asyncio.run(_call(target, kind))
    assert (200, b"".join(payloads.events(kind))) == (stream.status, stream.body)


def test_one_connection_serves_call_after_call(target: Target) -> None:
    """The figures are those of kept connections, not of new ones."""

    async def twice() -> list[bool]:
        connection = await connect(target.url)
        streams = [await connection.call("first") for _ in range(2)]
        connection.close()
        return [stream.is_whole("first") for stream in streams]

    assert asyncio.run(twice()) == [True, True]


@pytest.mark.parametrize(
    ("numbers", "whole"),
    [
        ([0, 1, 2, 3, 4], True),
        ([0, 1, 3, 4], False),
        ([0, 1, 3, 2, 4], False),
        ([0, 1, 2, 3], False),
        ([0, 1, 1, 2, 3, 4], False),
    ],
)
def test_a_stream_is_whole_when_all_came_in_order(
    numbers: list[int], *, whole: bool
) -> None:
    """A lost, swapped or repeated event, or a missing `[DONE]`, is seen."""
    events = payloads.events("first")
    body = b"".join(events[number] for number in numbers)
    assert whole == Stream(200, body, 0.1, 0.2, 1).is_whole("first")


def test_events_that_arrive_together_are_counted() -> None:
    """Chunks that a server held back show up as several events in one read."""
    events = [b"%x\r\n%b\r\n" % (len(e), e) for e in payloads.events("first")]
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    reads = [head + events[0], b"".join(events[1:4]), events[4], b"0\r\n\r\n"]
    assert asyncio.run(_call_with(reads)).most == 3


def test_wrk_is_told_what_to_call_and_how_hard(tmp_path: Path, fake_wrk: Path) -> None:
    """The connections and seconds are arguments, the body is in the script."""
    Wrk(tmp_path).load("http://127.0.0.1:1", "regular", 16, 2)
    assert fake_wrk.read_text().splitlines() == [
        "--threads=1",
        "--connections=16",
        "--duration=2s",
        "--timeout=30s",
        f"--script={tmp_path}/regular.lua",
        "http://127.0.0.1:1/v1/chat/completions",
    ]
    body = f"wrk.body = [==[{payloads.request_body('regular').decode()}]==]"
    assert body in (tmp_path / "regular.lua").read_text().splitlines()


@pytest.mark.usefixtures("fake_wrk")
def test_failed_calls_do_not_count(tmp_path: Path) -> None:
    """Failed answers are answers to wrk; the rate leaves them out."""
    load = Wrk(tmp_path).load("http://127.0.0.1:1", "regular", 16, 2)
    assert (load.calls, load.failed, load.p50, load.rate) == (600, 100, 0.004, 200)


def test_a_missing_wrk_is_named_with_the_way_to_get_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit status is 2, and nothing is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert program.main() == 2
    assert "sudo apt-get install wrk" in capsys.readouterr().err


def test_the_figures_of_the_table_stand_in_columns() -> None:
    """A server without a figure has a dash."""
    lines = table(RESULTS).splitlines()
    assert [line[:70].rstrip() for line in lines] == TABLE.splitlines()


def test_the_table_compares_with_bare_direct_and_stock() -> None:
    """The comparisons are those that the bars are about."""
    lines = [line[70:].strip() for line in table(RESULTS).splitlines()]
    assert lines[1:6] == [
        "0.75 of bare, 75 times stock",
        "+0.10 over bare",
        "+0.20 over bare",
        "0.80 of bare, 32 times stock",
        "+0.90 over direct",
    ]


def test_the_profile_shares_out_the_time_of_a_call() -> None:
    """A helper's time is its caller's; threads beside the loop do not count."""
    loop = "main (app.py:1);run (asyncio/runners.py:2)"
    samples = f"{loop};a (x/one.py:3);get (<frozen os>:6) 30\n"
    samples += f"{loop};a (x/one.py:3);b (y/two.py:4) 70\n"
    seen = profiling.parse(samples + "work (z/three.py:5) 900\n", total=200)
    assert seen == profiling.Profile(
        total=200,
        packages={"x": 60, "y": 140},
        functions={"a (x/one.py:3)": 60, "b (y/two.py:4)": 140},
        callees={"get (<frozen os>:6)": 60, "b (y/two.py:4)": 140},
    )


def test_stock_runs_the_same_configuration_without_the_module() -> None:
    """Nothing but the `module:` lines is taken out of run.yaml."""
    lines = RUN_YAML.read_text().splitlines()
    left = targets.without_module(RUN_YAML.read_text()).splitlines()
    gone = [line for line in lines if line not in left]
    assert (["      module: lls_openai"] * 4, len(lines) - 4) == (gone, len(left))


async def _call(target: Target, kind: str) -> Stream:
    connection = await connect(target.url)
    try:
        return await connection.call(kind)
    finally:
        connection.close()


async def _call_with(reads: list[bytes]) -> Stream:
    """Make a call whose answer comes in these reads."""
    connection = Connection()

    class Transport(asyncio.Transport):
        def write(self, _: object) -> None:
            for read in reads:
                asyncio.get_running_loop().call_soon(connection.data_received, read)

    connection.connection_made(Transport())
    return await connection.call("first")
