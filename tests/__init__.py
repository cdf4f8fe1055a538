"""Tests against the real server and a loopback upstream, without keys or network."""
