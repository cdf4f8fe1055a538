"""What the servers of these tests have around them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests import readme
from tests.certificates import Authority
from tests.checkout import Checkout
from tests.server import free_port


class Identity(NamedTuple):
    """Who issues tokens, and one of them.

    Attributes:
        variables: `JWKS_URI`, for the server.
        token: A token that is good.
        checkout: The copy of the project where it was made, with `token.txt` in it.
    """

    variables: dict[str, str]
    token: str
    checkout: Checkout


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """README's own way of making a token, and of showing the key to check it with."""
    checkout = Checkout(tmp_path_factory.mktemp("identity"))
    commands = readme.section("A token of one's own in front").block("sh")
    port = free_port()
    with checkout.running(re.sub(r"\b9000\b", str(port), commands)):
        checkout.wait_until_listening(port)
        token = (checkout.path / "token.txt").read_text().strip()
        variables = {"JWKS_URI": f"http://localhost:{port}/jwks.json"}
        yield Identity(variables, token, checkout)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no system knows."""
    return Authority(tmp_path_factory.mktemp("authority"), "company-ca")


def variables_of(command: str) -> dict[str, str]:
    """The variables that stand before a command."""
    return dict(re.findall(r"(\w+)=(\S+) (?=\w+=|make)", command))
