"""How fast the server is, beside a bare relay and stock Llama Stack.

`python -m tests.bench` (`make bench`) sends the same calls to each of these, all in
front of the same upstream, and prints one table:

    direct   caller ─▶ upstream
    bare     caller ─▶ uvicorn and aiohttp, nothing else ─▶ upstream
    stock    caller ─▶ run.yaml without `module:` ─▶ upstream
    before   caller ─▶ run.yaml of another checkout (`--against DIR`) ─▶ upstream
    this     caller ─▶ run.yaml ─▶ upstream

They take turns in short rounds, and each figure is the median of its rounds.
"""
