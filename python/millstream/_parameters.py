"""Whether a function can be called as a step calls it, found out where the step is declared."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

from millstream.errors import PlanError

__all__ = ["check_parameters", "check_spelling"]


def check_parameters(function: Any, method: str, *arguments: str) -> None:
    """Refuse a function that certainly cannot be called with so many arguments.

    Parameters
    ----------
    function
        The function, or any object that can be called.
    method
        What calls it, as in ``map()``.
    *arguments
        What the arguments are called in messages.

    Examples
    --------
    >>> from millstream._parameters import check_parameters
    >>> check_parameters(lambda row, limit=3: row, "map()", "row")
    >>> check_parameters(lambda: 1, "map()", "row")
    Traceback (most recent call last):
        ...
    millstream.errors.PlanError: map() calls <lambda>(row), and <lambda>() takes no argument
    """
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        pass
    else:
        return
    from millstream.functions import function_name

    name = function_name(function)
    shown = signature.replace(
        parameters=[each.replace(annotation=each.empty) for each in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    raise PlanError(f"{method} calls {name}({', '.join(arguments)}), and {name}{shown} takes {_taken(signature)}")


def _signature(function: Any) -> inspect.Signature | None:
    """Return what a function takes; None where that cannot be known for certain.

    A decorator may pass on other arguments than it receives, so the function within does not count. An object
    that declares a signature of its own (a mock, a function of numba) may take something else.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not isinstance(inner, types.FunctionType | types.MethodType):
        inner = None if isinstance(inner, type) else getattr(type(inner), "__call__", None)
        if not isinstance(inner, types.FunctionType) or hasattr(function, "__wrapped__"):
            return None
    if hasattr(inner, "__signature__") or hasattr(function, "__signature__"):
        return None
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _taken(signature: inspect.Signature) -> str:
    """Return how many arguments a function takes, in words."""
    kinds = inspect.Parameter
    parameters = signature.parameters.values()
    by_name = [each.name for each in parameters if each.kind == kinds.KEYWORD_ONLY and each.default is each.empty]
    if by_name:
        return f"{' and '.join(by_name)} by name only"
    placed = [each for each in parameters if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    least = sum(each.default is each.empty for each in placed)
    if any(each.kind == kinds.VAR_POSITIONAL for each in parameters):
        return f"at least {_arguments(least)}"
    if least < len(placed):
        return f"{least} to {len(placed)} arguments"
    return _arguments(least)


def _arguments(count: int) -> str:
    return "no argument" if count == 0 else "one argument" if count == 1 else f"{count} arguments"


def check_spelling(own: type, base: type, methods: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a method that is never called, since a letter of its name is wrong.

    Parameters
    ----------
    own
        The class of the user's.
    base
        The class of Millstream that it is derived from.
    methods
        What may be defined, and the arguments that each is called with.

    Notes
    -----
    Refused is a method whose name is that of a method of Millstream but for one letter, if it takes the arguments of that one,
    which is not defined, and if no code of the class uses the name. A helper that only other code calls looks the same; an
    underscore in front or at the end of its name sets it apart.
    """
    classes = own.__mro__[: own.__mro__.index(base)]
    values = [(name, value) for each in classes for name, value in vars(each).items()]
    defined = {name: value for name, value in values if isinstance(value, types.FunctionType)}
    used = {name for _, value in values for code in _codes(value) for name in code.co_names}
    for name, value in defined.items():
        if name in methods or name in used or name.startswith("__"):
            continue
        for meant, arguments in methods.items():
            # Of a method that has a name of its own by intent, such as closed(), one of these is not true.
            if meant not in defined and _is_slip(name, meant) and _takes(value, arguments):
                shown = ", ".join(("self", *arguments))
                raise PlanError(
                    f"{own.__name__} has a method {name}() that is never called; did you mean {meant}({shown})? "
                    f"If it is a helper of yours, call it {name}_()"
                )


def _codes(value: Any) -> Iterator[types.CodeType]:
    """Yield the code of what a class defines, with that of the functions, lambdas and comprehensions inside it."""
    # Properties, also cached ones, static methods and methods of the class have functions within, and so has what a decorator returns.
    within = [getattr(value, name, None) for name in ("fget", "fset", "fdel", "func", "__func__", "__wrapped__")]
    codes = [each.__code__ for each in (value, *within) if isinstance(each, types.FunctionType)]
    while codes:
        code = codes.pop()
        yield code
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]


def _is_slip(name: str, meant: str) -> bool:
    """Tell whether a name is another one but for a letter that is left out, doubled or swapped, or for how words are joined."""
    if name.startswith("_") or name.endswith("_"):
        # That is how a name is kept apart from another one.
        return False
    plain, target = (each.replace("_", "").lower() for each in (name, meant))
    if plain == target:
        return True
    left_out = {target[:place] + target[place + 1 :] for place in range(len(target))}
    doubled = {target[:place] + target[place] + target[place:] for place in range(len(target))}
    swapped = {target[:place] + target[place + 1] + target[place] + target[place + 2 :] for place in range(len(target) - 1)}
    return plain in left_out | doubled | swapped


def _takes(function: types.FunctionType, arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind(None, *arguments)
    except (TypeError, ValueError):
        return False
    return True
