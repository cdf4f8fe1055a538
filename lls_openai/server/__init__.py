"""The process around the relay; `patches.py` puts all of it in place."""
