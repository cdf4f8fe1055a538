"""TCP keep-alive, for connections to clients and to upstreams.

A peer that has vanished is noticed although it sends nothing, and no NAT on the way
forgets the connection while a model thinks.
"""

import socket

# Seconds before the first probe and between two; the last one ends it (tcp(7)).
IDLE, INTERVAL, PROBES = 60, 15, 4

_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE),
    # The same on macOS.
    ("TCP_KEEPALIVE", IDLE),
    ("TCP_KEEPINTVL", INTERVAL),
    ("TCP_KEEPCNT", PROBES),
)


def enable_keep_alive(sock: socket.socket) -> None:
    """Enable keep-alive with the options that the system has."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        if option := getattr(socket, name, None):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
