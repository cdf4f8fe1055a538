"""The process around the relay; `install.py` puts all of it in place."""
