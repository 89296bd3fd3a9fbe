"""Functions of text, times, lists, structs and maps in expressions."""

from millstream._namespaces.datetimes import DateTimeNamespace
from millstream._namespaces.lists import ListNamespace
from millstream._namespaces.maps import MapNamespace
from millstream._namespaces.strings import StringNamespace
from millstream._namespaces.structs import StructNamespace

__all__ = ["DateTimeNamespace", "ListNamespace", "MapNamespace", "StringNamespace", "StructNamespace"]
