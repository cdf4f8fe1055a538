"""One program a client, run in that client's own environment."""
