"""Functions of structs in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._namespaces.base import Namespace

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["StructNamespace"]


class StructNamespace(Namespace):
    """Functions of structs: ``col("s").struct``.

    Notes
    -----
    Null in, null out. A field that does not exist is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> s = mill.from_iter([{"at": {"x": 1, "y": 2}}])
    >>> s.select(col("at").struct.field("y")).collect().to_pylist()
    [{'y': 2}]
    """

    __slots__ = ()
    _prefix = "struct"

    def field(self, name: str) -> Expr:
        """Return one field of a struct.

        Parameters
        ----------
        name
            The name of the field.

        Notes
        -----
        ``col("at").struct["y"]`` is the same.

        Examples
        --------
        >>> mill.from_iter([{"at": {"x": 1, "y": 2}}]).select(y=col("at").struct.field("y")).collect()["y"]
        [2]
        """
        return self._call("field", name)

    def json_encode(self) -> Expr:
        """Write each struct as a JSON object.

        Raises
        ------
        SchemaError
            When the expression is used in a step and the column is not a struct.

        Notes
        -----
        Values have the form in which :meth:`Stream.write_json` writes them, so :meth:`StringNamespace.json_decode` reads them
        back. A null is null, and not the text ``null``.

        Examples
        --------
        >>> s = mill.from_iter([{"p": {"x": 1, "tags": ["a", None]}}])
        >>> s.select(x=col("p").struct.json_encode()).collect()["x"]
        ['{"x":1,"tags":["a",null]}']
        """
        return self._call("json_encode")

    def __getitem__(self, name: str) -> Expr:
        """Return one field; the same as :meth:`field`."""
        return self.field(name)
