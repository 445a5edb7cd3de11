"""Layouts: how an event's value and metadata lie in the fields of an entry.

Does        turn (body, metadata) into flat fields, and back.
Does not    know codecs: a body is flat fields (`fields`) or bytes (`value`).
Invariants  1. what others wrote is read with empty metadata, never dropped.
            2. metadata that is not given takes no room.
First file  `base.py`; then `fields.py` (untyped streams), `value.py` (typed ones).
"""

from penstock.layouts.base import Layout, layout_named
from penstock.layouts.fields import FieldsLayout
from penstock.layouts.value import ValueLayout

__all__ = ["FieldsLayout", "Layout", "ValueLayout", "layout_named"]
