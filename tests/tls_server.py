"""The real server with a certificate of its own."""

import http.client
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import override

from tests.server import Server

_HOST = "127.0.0.1"


class TlsServer(Server):
    """A server that speaks TLS; its address begins with https."""

    def __init__(
        self,
        directory: Path,
        *,
        trusting: ssl.SSLContext,
        run_yaml: Path,
        variables: Mapping[str, str],
    ) -> None:
        """Start it and wait until it answers.

        Args:
            directory: As for `Server`.
            trusting: A context that trusts its certificate.
            run_yaml: The configuration, with its certificate.
            variables: As for `Server`.
        """
        self._trusting = trusting
        super().__init__(directory, run_yaml=run_yaml, variables=variables)

    @property
    @override
    def url(self) -> str:
        return f"https://{_HOST}:{self.port}"

    @override
    def _is_healthy(self) -> bool:
        connection = http.client.HTTPSConnection(
            _HOST, self.port, timeout=5, context=self._trusting
        )
        try:
            connection.request("GET", "/v1/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
