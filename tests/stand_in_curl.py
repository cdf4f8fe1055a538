"""Stands in for curl on a machine that has none, or one older than `--json`.

It takes the options of README's commands, and no others.
"""

import argparse
import shutil
import subprocess
import sys
import urllib.error
import urllib.request


def has_curl() -> bool:
    """Whether the machine's own curl understands README's commands."""
    curl = shutil.which("curl")
    if curl is None:
        return False
    asked = subprocess.run(
        [curl, "--help", "all"], capture_output=True, text=True, check=False
    )
    return "--json" in asked.stdout


def main() -> int:
    """Print the answer to one request.

    Returns:
        The exit status; an HTTP error is an answer like others, as for curl.
    """
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in options.H)
    headers["Content-Type"] = headers["Accept"] = "application/json"
    request = urllib.request.Request(options.url, options.json.encode(), headers)  # noqa: S310 - the address is README's
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
            shutil.copyfileobj(answer, sys.stdout.buffer)
    except urllib.error.HTTPError as error:
        shutil.copyfileobj(error, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
