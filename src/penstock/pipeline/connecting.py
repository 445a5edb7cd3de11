"""Connecting: the options of `connect`, as an App takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypedDict

from penstock.clock import Clock
from penstock.ports import Confirm
from penstock.signals import Observer


class ConnectKeywords(TypedDict, total=False):
    """The options of `connect`, which says what each means."""

    user: str | None
    password: str | None
    db: int | None
    client_name: str | None
    timeout: float | None
    ca: str | os.PathLike[str] | None
    cert: str | os.PathLike[str] | None
    key: str | os.PathLike[str] | None
    verify: bool | None
    sentinel_user: str | None
    sentinel_password: str | None
    confirm: Confirm
    max_event_bytes: int
    observer: Observer | Iterable[Observer]
    clock: Clock | None
