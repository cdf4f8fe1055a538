"""How fast the server is, beside a bare relay and stock Llama Stack.

`python -m tests.bench` (`make bench`) sends the same calls four ways, all to the same
upstream, and prints one table:

    direct   caller ─▶ upstream
    bare     caller ─▶ bare ASGI relay ─▶ upstream      (the yardstick, bare.py)
    stock    caller ─▶ run.yaml without `module:` ─▶ upstream
    this     caller ─▶ run.yaml ─▶ upstream

direct, bare and this take turns in several short rounds, and each figure is the median
of its rounds, so that a noisy machine favours none of them. Stock has one longer round
of its own: a short one would hardly see a call end. What a busy machine distorts least
is the CPU time of a call; the line above the table says how busy it was.
"""
