"""How values travel: one JSON format with tagged scalars and exceptions, and the declared types on the other side.

This package knows types and text. It must not know runs, stores or Celery, and never imports or calls what data names.
"""

from orchestrator.codec.decoding import decode
from orchestrator.codec.encoding import encode
from orchestrator.codec.exceptions import error_to_dict
from orchestrator.codec.schema import is_any_annotation, type_adapter, validate
from orchestrator.codec.shapes import ANY, DictOf, ListOf, Plain, Shape, Typed, restore, shape_at

__all__ = [
    "ANY",
    "DictOf",
    "ListOf",
    "Plain",
    "Shape",
    "Typed",
    "decode",
    "encode",
    "error_to_dict",
    "is_any_annotation",
    "restore",
    "shape_at",
    "type_adapter",
    "validate",
]
