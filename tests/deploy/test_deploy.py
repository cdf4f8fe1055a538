"""What `make deploy` checks: each file of deploy/ does its job in the real tool."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from kubernetes_validate import latest_version, validate

from tests.support.http import CHAT, bearer, chat, eventually
from tests.support.network import Network
from tests.support.run_yaml import PROJECT
from tests.support.server import Server, free_port
from tests.support.upstream import Upstream
from tests.support.wire import DONE, FIRST_EVENT, Gate, stream

pytestmark = pytest.mark.server({}, env={"FORWARDED_ALLOW_IPS": "127.0.0.1"})

DEPLOY = PROJECT / "deploy"
# For pip and uv, which may need what conftest.py takes out of the environment.
MACHINE = dict(os.environ)
# Prints the modules of the server that would be compiled at every start.
UNCOMPILED = """
import llama_stack.core.server.server, lls_openai.provider, os, sys
for module in list(sys.modules.values()):
    if (path := getattr(module, "__cached__", None)) and not os.path.exists(path):
        print(path)
"""


def tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    return found or pytest.fail(f"{name} is missing: apt-get install {package}")


def edited(name: str, changes: dict[str, str]) -> str:
    """The text of a file in deploy/ with `changes`, each of which must apply."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Stage:
    """One FROM of the Containerfile: a folder, and what its lines have set."""

    def __init__(self, root: Path) -> None:
        """Lay this Python out like the image of Python: without tests and bytecode."""
        self.root, self.lines = root, {"WORKDIR": "/"}
        # What that sets, and where a libpython of this Python's would be.
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.env |= {"LD_LIBRARY_PATH": "/usr/local/lib"}
        assert sys.base_prefix != "/usr", "cannot be copied: uv python install 3.12"
        unwanted = ("__pycache__", "test*", "*.a", "site-packages", "share", "include")
        ignore, target = shutil.ignore_patterns(*unwanted), root / "usr/local"
        shutil.copytree(sys.base_prefix, target, ignore=ignore, symlinks=True)
        (root / "app").mkdir()
        self.run("python -B -m ensurepip --default-pip")

    def inside(self, *options: str, bind: str = "--ro-bind") -> list[str]:
        """The command that runs another with this folder in its place."""
        command = [tool("bwrap", "bubblewrap"), "--dev", "/dev", "--proc", "/proc"]
        for path in ("/usr", "/bin", "/lib", "/lib64", "/etc"):
            command += ["--ro-bind-try", path, path]
        for path in ("/usr/local", "/app"):
            command += [bind, f"{self.root}{path}", path]
        command += ["--chdir", self.lines["WORKDIR"], "--die-with-parent"]
        return [*command, *options]

    def run(self, line: str) -> None:
        """Carry out a RUN, with this machine's settings of pip and uv."""
        command = self.inside("--tmpfs", "/run", "sh", "-c", line, bind="--bind")
        env = {**MACHINE, **self.env, "HOME": "/run", "TMPDIR": "/run"}
        subprocess.run(command, env=env, check=True, timeout=300)


def build(folder: Path) -> Stage:
    """Follow the Containerfile line by line; return its last stage."""
    stages: list[Stage] = []
    for line in (DEPLOY / "Containerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append(stage := Stage(folder / str(len(stages))))
        elif word == "RUN":
            stage.run(rest)
        elif word == "COPY":
            origin = stages[0].root if "--from=build " in rest else PROJECT
            *paths, target = rest.removeprefix("--from=build ").split()
            copy = ["/bin/cp", "-a", *(f"{origin}/{p}" for p in paths)]
            copy += [] if target.endswith("/") else ["--no-target-directory"]
            subprocess.run([*copy, f"{stage.root}/app/{target}"], check=True)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in rest.split())
        elif word not in {"", "#"}:
            stage.lines[word] = rest
    return stage


def test_the_image_serves_read_only_without_home_to_any_user(tmp_path: Path) -> None:
    """It adds at most 200 MB, has its bytecode, and stops when asked."""
    stage = build(tmp_path)
    ours = [*stage.root.glob("app/**/*"), *stage.root.glob("usr/local/**/*.pyc")]
    assert sum(path.lstat().st_size for path in ours) < 200e6
    user, group = stage.lines["USER"].split(":")
    ids = ("--unshare-user", "--uid", user, "--gid", group)
    image = stage.inside(*ids, "--remount-ro", "/")
    env = stage.env | {"LLS_HOST": "127.0.0.1", "LLAMA_STACK_PORT": str(free_port())}
    start = json.loads(stage.lines["ENTRYPOINT"])
    check = [*image, *json.loads(stage.lines["HEALTHCHECK"].partition("CMD ")[2])]
    healthy = partial(subprocess.run, check, env=env, capture_output=True)
    assert subprocess.check_output([*image, start[0], "-c", UNCOMPILED], env=env) == b""
    with subprocess.Popen([*image, *start], env=env) as process:
        try:
            eventually(lambda: healthy().returncode == 0, "the image is healthy", 60)
            # bubblewrap waits for the server, which is its child.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            os.kill(int(children.read_text()), signal.SIGTERM)
            assert process.wait(30) == 0
            assert healthy().returncode == 1
        finally:
            process.kill()


def test_systemd_takes_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    """An exposure below 1.5 of 10."""
    unit = tmp_path / "lls-openai.service"
    python = {"/opt/lls-openai/.venv/bin/python": sys.executable}
    unit.write_text(edited(unit.name, python | {"/opt/lls-openai": str(PROJECT)}))
    for options in (["verify"], ["security", "--offline=1", "--threshold=15"]):
        command = [tool("systemd-analyze", "systemd"), *options, str(unit)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_kubernetes_takes_every_object() -> None:
    """The schemas of the newest release know each field of them."""
    for item in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        validate(item, latest_version(), strict=True)


@pytest.fixture
def nginx(
    request: pytest.FixtureRequest, tmp_path: Path, server: Server, network: Network
) -> Iterator[httpx.Client]:
    """Run nginx with deploy/nginx.conf in front of the server; yield a client of it."""
    port, conf = free_port(), tmp_path / "nginx.conf"
    changes = {
        "/etc/nginx/llm.example.com.pem": network.env["CERT_FILE"],
        "/etc/nginx/llm.example.com-key.pem": network.env["KEY_FILE"],
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen [::]:443": f"listen [::1]:{port}",
        "127.0.0.1:8321": f"127.0.0.1:{server.port}",
    }
    site = edited("nginx.conf", changes | getattr(request, "param", {}))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    # As the user of this test, who may write to its folder.
    start = f"user {pwd.getpwuid(os.getuid()).pw_name}; pid {tmp_path}/pid; events {{}}"
    conf.write_text(f"{start} http {{ access_log off; {paths} {site} }}")
    command = [tool("nginx", "nginx"), "-g", "daemon off;", "-c", str(conf)]
    url = f"https://127.0.0.1:{port}"
    with subprocess.Popen([*command, "-e", "stderr"]) as process:
        try:
            eventually((tmp_path / "pid").exists, "nginx writes its pid")
            # From an address that is not nginx's own.
            via = httpx.HTTPTransport(network.client_context, local_address="127.0.0.2")
            with httpx.Client(base_url=url, transport=via, timeout=30) as client:
                yield client
        finally:
            process.terminate()


def test_nginx_streams_limits_no_body_and_tells_who_calls(
    nginx: httpx.Client, server: Server, upstream: Upstream
) -> None:
    """A body over the limit gets the server's own 413, in JSON.

    With FORWARDED_ALLOW_IPS the log has the client's address, not what it claims.
    """
    gate, body = Gate(), chat(stream=True)
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))
    with nginx.stream("POST", CHAT, json=body, headers=bearer()) as response:
        pieces = response.iter_raw()
        assert next(pieces) == FIRST_EVENT
        gate.open()
        assert b"".join(pieces) == DONE
    bodies = [chat(user="x" * size) for size in (20_000_000, 70_000_000)]
    fine, refused = (nginx.post(CHAT, json=each, headers=bearer()) for each in bodies)
    assert (fine.status_code, refused.status_code) == (200, 413)
    assert "error" in refused.json()
    nginx.get("/v1/models", headers={"X-Forwarded-For": "192.0.2.1"})
    (line,) = server.wait_access_log(path="/v1/models")
    assert line["client"].partition(":")[0] == "127.0.0.2"


@pytest.mark.parametrize("nginx", [{"127.0.0.1:8321": "127.0.0.1:1"}], indirect=True)
def test_nginx_answers_in_json_for_a_server_that_is_down(nginx: httpx.Client) -> None:
    response = nginx.get("/v1/models")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error"]["code"] == "server_unreachable"
