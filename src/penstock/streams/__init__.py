"""Streams: the API of door 2.

Does        connect, append, read, share among a group.
Does not    know a backend: it knows `ports`. It does not know flows or pipelines either.
First file  `client.py`; then `stream.py`, `writer.py`, `reader.py`, `group.py`.
"""
