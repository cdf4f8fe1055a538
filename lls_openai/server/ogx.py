"""Serving on OGX without its command line.

`ogx run` writes the resolved run.yaml, secrets included, to a temporary file for its
workers. Its `logging_config` block is lost there, so that OGX logs the whole file, with
the password of a proxy's URL.
"""

import multiprocessing
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from lls_openai.server.config_check import abort_startup
from lls_openai.server.logging_setup import set_up_logging
from lls_openai.stack import VARIABLE, StackConfig, Untyped, server

_CONFIG = f"{VARIABLE}_CONFIG"


def serve_on_ogx(path: Path, port: int, config: StackConfig) -> None:
    """Start OGX's application, as `ogx run` does."""
    os.environ[_CONFIG] = str(path.resolve())
    try:
        uvicorn.run(
            "lls_openai.server.ogx:create_app",
            factory=True,
            host=config.server.host or "",
            port=port,
            workers=config.server.workers,
            lifespan="on",
            **_tls_options(config.server),
        )
    except SystemExit:
        # The threads of OGX's stores would keep the process alive.
        abort_startup("the server did not start; the log above says why")


def create_app() -> ASGIApp:
    """Build OGX's application, in each worker, with our log from its first line on."""
    set_up_its_own = server.setup_logging

    def set_up(*args: object) -> None:
        set_up_its_own(*args)
        set_up_logging()

    server.setup_logging = set_up
    app: ASGIApp = server.create_app()
    return app


def _tls_options(settings: Untyped) -> dict[str, Any]:
    if not settings.tls_certfile:
        return {}
    return {
        "ssl_certfile": settings.tls_certfile,
        "ssl_keyfile": settings.tls_keyfile,
        "ssl_ca_certs": settings.tls_cafile,
        # With an authority, each client needs a certificate of it.
        "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.tls_cafile else ssl.CERT_NONE,
        **_ciphers(settings.tls_config),
    }


def _ciphers(tls: Untyped) -> dict[str, str]:
    return {"ssl_ciphers": ":".join(tls.ciphers)} if tls and tls.ciphers else {}


def remove_resolved_config() -> None:
    """Delete the file that `ogx run` has written, unless other workers read it."""
    path = Path(os.environ.get(_CONFIG, ""))
    if not path.name.startswith("ogx-run-") or multiprocessing.parent_process():
        return
    # This comes last, since a container may have no directory for temporary files.
    if path.parent == Path(tempfile.gettempdir()):
        path.unlink(missing_ok=True)
