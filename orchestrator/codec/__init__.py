"""The codec: one JSON format with tagged scalars and exceptions, and the declared types on the other side.

This package knows types and text. It must not know runs, stores or Celery, and never imports or calls what data names.
"""

from orchestrator.codec.decoding import decode
from orchestrator.codec.encoding import encode, encode_packed
from orchestrator.codec.exceptions import error_to_dict
from orchestrator.codec.keys import name_text, require_name, require_unicode, with_text_keys
from orchestrator.codec.packing import Packing, require_method, require_readable, unpack
from orchestrator.codec.schema import is_any_annotation, type_adapter, validate
from orchestrator.codec.shapes import ANY, DictOf, ListOf, Plain, Shape, Typed, restore, shape_at
from orchestrator.codec.showing import as_json, key_as_json

__all__ = [
    "ANY",
    "DictOf",
    "ListOf",
    "Packing",
    "Plain",
    "Shape",
    "Typed",
    "as_json",
    "decode",
    "encode",
    "encode_packed",
    "error_to_dict",
    "is_any_annotation",
    "key_as_json",
    "name_text",
    "require_method",
    "require_name",
    "require_readable",
    "require_unicode",
    "restore",
    "shape_at",
    "type_adapter",
    "unpack",
    "validate",
    "with_text_keys",
]
