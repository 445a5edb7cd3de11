"""The command line: ``penstock …``.

Does        everything through the public API: what it can do, a program can.
Does not    get imported by anything; import click or rich where the extra ``cli`` is missing.
First file  `main.py`, then `commands.py`, which has the table of commands.
"""
