"""`make deploy`: each file in deploy/ works in the real tool."""

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
# For pip and uv, which may need variables that conftest.py removes.
MACHINE = dict(os.environ)
# Prints the modules without bytecode, which would be compiled at every start.
PRINT_UNCOMPILED = """
import llama_stack.core.server.server, lls_openai.provider, os, sys
for module in list(sys.modules.values()):
    if (path := getattr(module, "__cached__", None)) and not os.path.exists(path):
        print(path)
"""


def tool(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    return found or pytest.fail(f"{name} is missing: apt-get install {package}")


def edited(name: str, changes: dict[str, str]) -> str:
    """Return a file of deploy/ with `changes`, each of which must apply."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Stage:
    """One stage of the Containerfile: its directory and its settings."""

    def __init__(self, root: Path) -> None:
        """Copy this Python, without tests and bytecode, as in Python's image."""
        self.root, self.lines = root, {"WORKDIR": "/"}
        # As in Python's image, and where this Python may have its libpython.
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.env |= {"LD_LIBRARY_PATH": "/usr/local/lib"}
        assert sys.base_prefix != "/usr", "cannot be copied: uv python install 3.12"
        unwanted = ("__pycache__", "test*", "*.a", "site-packages", "share", "include")
        ignore, target = shutil.ignore_patterns(*unwanted), root / "usr/local"
        shutil.copytree(sys.base_prefix, target, ignore=ignore, symlinks=True)
        (root / "app").mkdir()
        self.run("python -B -m ensurepip --default-pip")

    def inside(self, *options: str, bind: str = "--ro-bind") -> list[str]:
        """Return the bubblewrap command that runs a program in this stage."""
        command = [tool("bwrap", "bubblewrap"), "--dev", "/dev", "--proc", "/proc"]
        for path in ("/usr", "/bin", "/lib", "/lib64", "/etc"):
            command += ["--ro-bind-try", path, path]
        for path in ("/usr/local", "/app"):
            command += [bind, f"{self.root}{path}", path]
        command += ["--chdir", self.lines["WORKDIR"], "--die-with-parent"]
        return [*command, *options]

    def run(self, line: str) -> None:
        """Execute a RUN line, with this machine's settings of pip and uv."""
        command = self.inside("--tmpfs", "/run", "sh", "-c", line, bind="--bind")
        env = {**MACHINE, **self.env, "HOME": "/run", "TMPDIR": "/run"}
        subprocess.run(command, env=env, check=True, timeout=300)


def build(folder: Path) -> Stage:
    """Execute the Containerfile line by line; return its last stage."""
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


def test_image_serves_read_only_without_home_as_any_user(tmp_path: Path) -> None:
    """It adds at most 200 MB, has bytecode, and stops at SIGTERM."""
    stage = build(tmp_path)
    added = [*stage.root.glob("app/**/*"), *stage.root.glob("usr/local/**/*.pyc")]
    assert sum(path.lstat().st_size for path in added) < 200e6
    user, group = stage.lines["USER"].split(":")
    ids = ("--unshare-user", "--uid", user, "--gid", group)
    image = stage.inside(*ids, "--remount-ro", "/")
    env = stage.env | {"LLS_HOST": "127.0.0.1", "LLAMA_STACK_PORT": str(free_port())}
    start = json.loads(stage.lines["ENTRYPOINT"])
    check = [*image, *json.loads(stage.lines["HEALTHCHECK"].partition("CMD ")[2])]
    healthy = partial(subprocess.run, check, env=env, capture_output=True)
    assert (
        subprocess.check_output([*image, start[0], "-c", PRINT_UNCOMPILED], env=env)
        == b""
    )
    with subprocess.Popen([*image, *start], env=env) as process:
        try:
            eventually(lambda: healthy().returncode == 0, "the image is healthy", 60)
            # The server is the child of bubblewrap.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            os.kill(int(children.read_text()), signal.SIGTERM)
            assert process.wait(30) == 0
            assert healthy().returncode == 1
        finally:
            process.kill()


def test_systemd_accepts_the_unit_with_an_exposure_below_1_5_of_10(
    tmp_path: Path,
) -> None:
    unit = tmp_path / "lls-openai.service"
    python = {"/opt/lls-openai/.venv/bin/python": sys.executable}
    unit.write_text(edited(unit.name, python | {"/opt/lls-openai": str(PROJECT)}))
    for options in (["verify"], ["security", "--offline=1", "--threshold=15"]):
        command = [tool("systemd-analyze", "systemd"), *options, str(unit)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_kubernetes_objects_match_the_newest_schemas() -> None:
    for item in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        validate(item, latest_version(), strict=True)


@pytest.fixture
def nginx(
    request: pytest.FixtureRequest, tmp_path: Path, server: Server, network: Network
) -> Iterator[httpx.Client]:
    """Run nginx with deploy/nginx.conf before the server; yield a client of nginx."""
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
    # As the user of this test, who may write to the directory.
    start = f"user {pwd.getpwuid(os.getuid()).pw_name}; pid {tmp_path}/pid; events {{}}"
    conf.write_text(f"{start} http {{ access_log off; {paths} {site} }}")
    command = [tool("nginx", "nginx"), "-g", "daemon off;", "-c", str(conf)]
    url = f"https://127.0.0.1:{port}"
    with subprocess.Popen([*command, "-e", "stderr"]) as process:
        try:
            eventually((tmp_path / "pid").exists, "nginx writes its pid")
            # From another address than nginx's.
            via = httpx.HTTPTransport(network.client_context, local_address="127.0.0.2")
            with httpx.Client(base_url=url, transport=via, timeout=30) as client:
                yield client
        finally:
            process.terminate()


def test_nginx_streams_responses(nginx: httpx.Client, upstream: Upstream) -> None:
    gate, body = Gate(), chat(stream=True)
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))

    with nginx.stream("POST", CHAT, json=body, headers=bearer()) as response:
        chunks = response.iter_raw()
        assert next(chunks) == FIRST_EVENT
        gate.open()
        assert b"".join(chunks) == DONE


@pytest.mark.parametrize(
    ("size", "status"),
    [
        pytest.param(20_000_000, 200, id="20-mb"),
        pytest.param(70_000_000, 413, id="over-max-request-bytes"),
    ],
)
def test_nginx_leaves_the_body_limit_to_the_server(
    size: int, status: int, nginx: httpx.Client
) -> None:
    body = chat(user="x" * size)

    response = nginx.post(CHAT, json=body, headers=bearer())

    assert response.status_code == status, response.text[:500]
    assert status == 200 or response.json()["error"]["code"] == "request_too_large"


def test_log_has_the_address_of_nginx_client_and_not_the_claimed_one(
    nginx: httpx.Client, server: Server
) -> None:
    nginx.get("/v1/models", headers={"X-Forwarded-For": "192.0.2.1"})

    (line,) = server.wait_access_log(path="/v1/models")
    assert line["client"].partition(":")[0] == "127.0.0.2"


@pytest.mark.parametrize("nginx", [{"127.0.0.1:8321": "127.0.0.1:1"}], indirect=True)
def test_nginx_returns_json_if_the_server_is_down(nginx: httpx.Client) -> None:
    response = nginx.get("/v1/models")

    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error"]["code"] == "server_unreachable"
