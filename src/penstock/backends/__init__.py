"""Backends: where streams are kept. They know ports, and nothing above them.

First file  `memory.py`, the reference semantics; then `redis/log.py`.
"""
