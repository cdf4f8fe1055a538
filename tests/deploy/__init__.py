"""Checks of deploy/ in the tools that its files are for."""
