"""Functions of maps in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._namespaces.base import Namespace

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["MapNamespace"]


class MapNamespace(Namespace):
    """Functions of maps: ``col("m").map``.

    Notes
    -----
    Null in, null out. A function of a column that is not a map is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> import pyarrow as pa
    >>> tags = pa.array([[("env", "prod"), ("zone", "a")], []], pa.map_(pa.string(), pa.string()))
    >>> s = mill.from_arrow(pa.table({"tags": tags}))
    >>> s.select(env=col("tags").map.get("env"), n=col("tags").map.len()).collect().to_pylist()
    [{'env': 'prod', 'n': 2}, {'env': None, 'n': 0}]
    """

    __slots__ = ()
    _prefix = "map"

    def get(self, key: Any) -> Expr:
        """Return the value of a key; null if the map does not have it.

        Parameters
        ----------
        key
            A constant, or an expression.

        Notes
        -----
        Of a key that a map has twice, the value of the last is returned.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> s = mill.from_arrow(pa.table({"ages": ages, "who": ["ann"]}))
        >>> s.select(x=col("ages").map.get("ann"), y=col("ages").map.get(col("who"))).collect().to_pylist()
        [{'x': 34, 'y': 34}]
        """
        return self._call("get", key)

    def contains_key(self, key: Any) -> Expr:
        """Return whether a map has a key.

        Parameters
        ----------
        key
            A constant, or an expression.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.contains_key("bob")).collect()["x"]
        [False]
        """
        return self._call("contains_key", key)

    def keys(self) -> Expr:
        """Return the keys as a list, in the order of the map.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34), ("bob", None)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.keys()).collect()["x"]
        [['ann', 'bob']]
        """
        return self._call("keys")

    def values(self) -> Expr:
        """Return the values as a list, in the order of the map.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34), ("bob", None)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.values()).collect()["x"]
        [[34, None]]
        """
        return self._call("values")

    def len(self) -> Expr:
        """Count the entries.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.len()).collect()["x"]
        [1]
        """
        return self._call("len")
