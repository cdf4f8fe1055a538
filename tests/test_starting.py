"""What is wrong with its configuration ends the server with one line that says so."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lls_openai.__main__ import main
from tests import environment
from tests.run_yaml import variant
from tests.server import RUN_YAML, free_port

type Json = dict[str, Any]

# uvicorn's own status for a server that could not start.
FAILED = 3
CHECKED = (sys.executable, "-m", "lls_openai")
LLAMA_STACK = (str(Path(sys.executable).parent / "llama"), "stack", "run")
TAKEN = "{taken}"


@dataclass(frozen=True)
class Wrong:
    """A server that cannot start.

    Attributes:
        says: What stands in the one line.
        run_yaml: The content of run.yaml, or what is changed in the real one.
        variables: Its variables; `TAKEN` becomes a port where somebody listens.
        command: What starts it.
    """

    says: str
    run_yaml: bytes | Callable[[Json], None] = lambda _config: None
    variables: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = CHECKED


def _provider(**entry: object) -> Callable[[Json], None]:
    return lambda config: config["providers"]["inference"][0].update(entry)


def _setting(**settings: object) -> Callable[[Json], None]:
    def change(config: Json) -> None:
        config["providers"]["inference"][0]["config"].update(settings)

    return change


def _server(**settings: object) -> Callable[[Json], None]:
    return lambda config: config["server"].update(settings)


def _url(url: str, **more: Any) -> Wrong:  # noqa: ANN401 - what `Wrong` takes
    return Wrong("base_url: ", variables={"OPENAI_UPSTREAM_URL": url}, **more)


def _taken(**variables: str) -> Wrong:
    return Wrong(
        "stop what listens there, or choose another port",
        variables={"LLAMA_STACK_PORT": TAKEN} | variables,
    )


FILES = {
    "no YAML": Wrong("run.yaml is not YAML", b"a: ["),
    "no text": Wrong("run.yaml is not YAML", b"\xff\xfe"),
    "an empty file": Wrong("run.yaml holds no settings", b""),
    "a list": Wrong("run.yaml holds no settings", b"- 1"),
    "no providers": Wrong("providers: Field required", b"version: 2"),
    "an unset variable": Wrong(
        "the variable NOT_SET is not set", _setting(base_url="${env.NOT_SET}")
    ),
    "a misspelt setting": Wrong(
        "allowed_model: Extra inputs are not permitted", _setting(allowed_model=[])
    ),
    "a setting of a wrong type": Wrong(
        "max_request_bytes: Input should be", _setting(max_request_bytes="much")
    ),
    "a certificate that is not there": Wrong(
        "network.tls.verify: ", _setting(network={"tls": {"verify": "/not/there"}})
    ),
    "a rule without paths": Wrong(
        "server.auth.route_policy.0.permit.paths: Field required",
        _server(auth={"route_policy": [{"permit": {}}]}),
    ),
}
# What only Llama Stack finds, once it starts.
FOUND_LATER = {
    "an unknown provider type": Wrong(
        "remote::nothing", _provider(provider_type="remote::nothing", module=None)
    ),
    "a certificate that is none": Wrong(
        "the network block of https://api.openai.com/",
        _setting(network={"tls": {"verify": str(RUN_YAML)}}),
    ),
    "the server's own certificate missing": Wrong(
        "No such file", _server(tls_certfile="/not/there", tls_keyfile="/not/there")
    ),
}
VARIABLES = {
    "an upstream that is no URL": _url("nowhere"),
    "an upstream of another scheme": _url("ftp://host"),
    "an upstream with a password": _url("https://user:password@host"),
    "an upstream with a query": _url("https://host/?a=b"),
    "an upstream without a host": _url("https://"),
    "workers that are no number": Wrong(
        "server.workers: Input should be", variables={"LLS_WORKERS": "many"}
    ),
    "no workers": Wrong("LLS_WORKERS", variables={"LLS_WORKERS": "0"}),
    "a port that is no number": Wrong(
        "the port (LLAMA_STACK_PORT", variables={"LLAMA_STACK_PORT": "http"}
    ),
    "a port that is none": Wrong(
        "the port (LLAMA_STACK_PORT", variables={"LLAMA_STACK_PORT": "70000"}
    ),
    "another machine's interface": Wrong(
        "cannot listen on 192.0.2.1", variables={"LLS_HOST": "192.0.2.1"}
    ),
    "a taken port": _taken(),
    "a taken port for several workers": _taken(LLS_WORKERS="2"),
}
# What Llama Stack's own command, which nothing checks before, says in one line too.
BY_LLAMA_STACK = {
    "an upstream that is no URL": _url("nowhere", command=LLAMA_STACK),
    "a taken port": Wrong(
        "cannot listen on 127.0.0.1",
        variables={"LLAMA_STACK_PORT": TAKEN},
        command=LLAMA_STACK,
    ),
}
FOUND_FIRST = {
    **FILES,
    **VARIABLES,
}
IN_PROCESSES = {
    **FOUND_LATER,
    **{f"{name}, by llama stack run": each for name, each in BY_LLAMA_STACK.items()},
    "a taken port, by make server": VARIABLES["a taken port for several workers"],
}


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


def _written(wrong: Wrong, directory: Path) -> str:
    if callable(wrong.run_yaml):
        return str(variant(directory, wrong.run_yaml))
    run_yaml = directory / "run.yaml"
    run_yaml.write_bytes(wrong.run_yaml)
    return str(run_yaml)


def _variables(wrong: Wrong, taken: str) -> dict[str, str]:
    port = {"LLAMA_STACK_PORT": str(free_port())}
    return port | {n: v.replace(TAKEN, taken) for n, v in wrong.variables.items()}


# Llama Stack reads its own configuration through a field that it calls deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", FOUND_FIRST)
def test_what_is_wrong_is_found_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    taken: str,
    name: str,
) -> None:
    """One line says what, and the process would end with a status that is not 0.

    It is the command's own function, called here: to load Llama Stack takes seconds.
    """
    wrong = FOUND_FIRST[name]
    for variable, value in _variables(wrong, taken).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["lls_openai", _written(wrong, tmp_path)])
    monkeypatch.setattr(os, "_exit", sys.exit)

    with pytest.raises(SystemExit) as ended:
        main()

    output = capfd.readouterr()
    assert (ended.value.code, output.out, output.err.count("\n")) == (FAILED, "", 1)
    assert output.err.startswith("lls-openai: ")
    assert wrong.says in output.err


def _start(wrong: Wrong, directory: Path, taken: str) -> tuple[int, str]:
    """Start a server, which has to end by itself; give its status and output."""
    own = {"HOME": str(directory)} | _variables(wrong, taken)
    ended = subprocess.run(
        [*wrong.command, _written(wrong, directory)],
        cwd=directory,
        env=environment.clean() | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, taken: str
) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """All of them, several at a time: each takes seconds, mostly to load."""
    with ThreadPoolExecutor(3) as starting:
        yield {
            name: starting.submit(_start, each, tmp_path_factory.mktemp("wrong"), taken)
            for name, each in IN_PROCESSES.items()
        }


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_what_is_wrong_ends_the_process_with_a_line(
    started: dict[str, Future[tuple[int, str]]], name: str
) -> None:
    """Also what only Llama Stack finds; there is no traceback, and nothing hangs."""
    status, output = started[name].result()

    own = [line for line in output.splitlines() if line.startswith("lls-openai: ")]
    assert (status, len(own)) == (FAILED, 1), output
    assert IN_PROCESSES[name].says in own[0]
    assert "Traceback" not in output


def test_a_file_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is named as it was given."""
    monkeypatch.setattr(sys, "argv", ["lls_openai", "not/there.yaml"])
    monkeypatch.setattr(os, "_exit", sys.exit)

    with pytest.raises(SystemExit):
        main()

    line = "lls-openai: cannot read not/there.yaml: No such file or directory\n"
    assert line == capfd.readouterr().err
