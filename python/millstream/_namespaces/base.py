"""What the namespaces of functions in expressions have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._hints import no_attribute

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["Namespace"]


class Namespace:
    __slots__ = ("_expr",)

    _prefix = ""

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that names the function of Millstream for one of another library."""
            raise no_attribute(self, name)

    def _call(self, function: str, *args: Any) -> Expr:
        return self._expr._call(f"{self._prefix}.{function}", *args)

    def _call_columns(self, function: str, *args: Any) -> Expr:
        return self._expr._call_columns(f"{self._prefix}.{function}", *args)
