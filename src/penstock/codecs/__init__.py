"""Codecs: between a user's values and what a layout stores.

Does        encode on append, decode when `event.value` is first used.
Does not    know layouts or backends; guess: the codec's name is stored with the stream.
First file  `base.py`; then `fields.py`, `json.py`, `raw.py`.
"""

from penstock.codecs.base import Codec, codec_named
from penstock.codecs.fields import FieldsCodec
from penstock.codecs.json import JsonCodec
from penstock.codecs.raw import RawCodec

__all__ = ["Codec", "FieldsCodec", "JsonCodec", "RawCodec", "codec_named"]
