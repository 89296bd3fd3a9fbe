"""Aggregates of your own."""

from __future__ import annotations

import typing
from typing import Any, Protocol

from millstream._engine import RawExpr, aggregate_function
from millstream._parameters import check_parameters
from millstream.errors import PlanError
from millstream.expr import Expr, IntoExpr, _column
from millstream.types import TypeLike, data_type

__all__ = ["Aggregate", "aggregate"]


class Aggregate(Protocol):
    """An aggregate of your own, for :func:`aggregate`: an object with these methods.

    States are pickled between calls, so they must be picklable. They are also pickled in checkpoints. Trust a state
    directory with such state as you trust code, since unpickling can run any code.

    Examples
    --------
    >>> class Product:
    ...     def create(self) -> float:
    ...         return 1.0
    ...     def add(self, state: float, value: float) -> float:
    ...         return state * value
    ...     def merge(self, left: float, right: float) -> float:
    ...         return left * right
    ...     def result(self, state: float) -> float:
    ...         return state
    >>> mill.from_iter([2.0, 3.0, 4.0]).agg(x=mill.aggregate(Product, "value")).collect()["x"]
    [24.0]
    """

    def create(self) -> Any:
        """Return the state of no value.

        Returns
        -------
        object
            Any picklable object.
        """

    def add(self, state: Any, value: Any) -> Any:
        """Return the state with one more value.

        Parameters
        ----------
        state
            The state so far; it may be changed in place and returned.
        value
            The value; None if it is null.

        Returns
        -------
        object
            The new state.
        """

    def merge(self, left: Any, right: Any) -> Any:
        """Merge two states of the same group.

        Parameters
        ----------
        left
            A state; it may be changed in place and returned.
        right
            Another state, of other values.

        Returns
        -------
        object
            The state of all values of both.
        """

    def result(self, state: Any) -> Any:
        """Return the result of a state.

        Parameters
        ----------
        state
            The state of all values of a group.

        Returns
        -------
        object
            A value of the type that :func:`aggregate` declares, or None for null.
        """


def aggregate(function: Aggregate | type[Aggregate], value: IntoExpr, *, returns: TypeLike = None) -> Expr:
    """Aggregate with a class of your own.

    Parameters
    ----------
    function
        An object with ``create() -> state``, ``add(state, value) -> state``, ``merge(a, b) -> state`` and
        ``result(state)``, or its class.
    value
        What is aggregated: the name of a column, or an expression.
    returns
        The type of the result; by default the annotation of ``result``.

    Returns
    -------
    Expr
        An aggregate, for ``agg()``.

    Raises
    ------
    PlanError
        When a method is missing, or the type of the result is not known.
    SchemaError
        When ``returns`` is not a type.
    UserFunctionError
        When the job runs and a method raises, or its result does not fit the type.

    Examples
    --------
    >>> class Longest:
    ...     def create(self) -> str:
    ...         return ""
    ...     def add(self, state: str, value: str) -> str:
    ...         return max(state, value, key=len)
    ...     def merge(self, left: str, right: str) -> str:
    ...         return max(left, right, key=len)
    ...     def result(self, state: str) -> str:
    ...         return state
    >>> s = mill.from_iter([{"k": 1, "t": "a"}, {"k": 1, "t": "abc"}])
    >>> s.key_by("k").agg(longest=mill.aggregate(Longest, "t")).collect().to_pylist()
    [{'k': 1, 'longest': 'abc'}]
    """
    return Expr(aggregate_expression(function, _column(value), returns))


class _AggregateAdapter:
    """Runs an aggregate of the user's over pickled states."""

    __slots__ = ("_aggregate", "_dumps", "_loads")

    def __init__(self, aggregate: Any) -> None:
        import pickle

        self._aggregate = aggregate
        self._dumps, self._loads = pickle.dumps, pickle.loads

    def update(self, state: bytes | None, values: list[Any]) -> bytes:
        """Add values to a state."""
        current = self._aggregate.create() if state is None else self._loads(state)
        add = self._aggregate.add
        for value in values:
            current = add(current, value)
        return self._dumps(current, 5)

    def merge(self, left: bytes, right: bytes) -> bytes:
        """Merge two states."""
        return self._dumps(self._aggregate.merge(self._loads(left), self._loads(right)), 5)

    def finish(self, state: bytes | None) -> Any:
        """Return the result of a state."""
        return self._aggregate.result(self._aggregate.create() if state is None else self._loads(state))


_METHODS = {"create": (), "add": ("state", "value"), "merge": ("left", "right"), "result": ("state",)}


def aggregate_expression(function: Any, value: RawExpr, returns: TypeLike) -> RawExpr:
    """Return the expression of an aggregate of the user's."""
    instance = function() if isinstance(function, type) else function
    name = type(instance).__name__
    missing = [method for method in _METHODS if not callable(getattr(instance, method, None))]
    if missing:
        raise PlanError(f"aggregate: {name} has no {', '.join(missing)}; it needs create, add, merge and result")
    for method, arguments in _METHODS.items():
        check_parameters(getattr(instance, method), f"aggregate({name})", *arguments)
    if returns is None:
        try:
            returns = typing.get_type_hints(type(instance).result).get("return")
        except (NameError, TypeError):
            returns = None
        if returns is None:
            raise PlanError(f"aggregate(): the type that {name} returns is not known; annotate result() or pass returns=")
    return aggregate_function(name, _AggregateAdapter(instance), data_type(returns, place="returns"), value)
