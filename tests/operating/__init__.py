"""README's "Operating it", tried: each section's lines of run.yaml, in a real server.

A module has one server, booted with the lines of the sections that it names in
`SECTIONS`; several go into one where they do not touch each other. Where README gives
variables or a command instead of lines, those are used.
"""
