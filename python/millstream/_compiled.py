"""Functions compiled by numba, with the whole numbers of Python: what does not fit 64 bits is an error.

numba computes with machine integers and lets them wrap around, and rounds them to floats before it divides. Here every
``+ - * /``, ``**``, ``<<`` and ``-x`` of a function is replaced, before numba finds the types, by a call that is the same
operation for floats and a checked one for integers::

    a * b  ──►  times(a, b)  ──►  floats: a * b      integers: the product and its overflow flag, one instruction
    a / b  ──►  over(a, b)   ──►  floats: a / b      integers: the float nearest to the exact quotient

Only the function itself is treated so, not functions that it calls.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["checked", "result_kind"]

_INTEGER_BITS = 64
_FLOAT_MAX = 1 << 53
"""Up to here all integers are floats."""
_PLACES_MAX = 128
"""More bits than any quotient of two integers has in front of the first 57 that are not zero."""


def result_kind(dispatcher: Any, types: tuple[Any, ...]) -> str:
    """Compile for arguments of these types and return what comes out: ``bool_``, ``int64``, ``uint64`` or ``float64``.

    Raises
    ------
    TypeError
        When it is neither a number nor a truth value.
    """
    from numba import types as kinds

    dispatcher.compile(types)
    found = dispatcher.overloads[types].signature.return_type
    found = getattr(found, "literal_type", found)
    if isinstance(found, kinds.Boolean):
        return "bool_"
    if isinstance(found, kinds.Integer):
        return "int64" if found.signed or found.bitwidth < _INTEGER_BITS else "uint64"
    if isinstance(found, kinds.Float):
        return "float64"
    what = "None on some of its ways" if isinstance(found, (kinds.Optional, kinds.NoneType)) else str(found)
    raise TypeError(f"it returns {what}, and compiled code returns a number or a truth value; leave compiled=True out")


def checked(function: Callable[..., Any]) -> Any:
    """Return numba's dispatcher of a function, in which integers that overflow raise ``OverflowError``."""
    import numba

    return numba.njit(nogil=True, pipeline_class=_pipeline())(function)


@functools.cache
def _pipeline() -> Any:
    from numba.core import ir, ir_utils
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.compiler_machinery import FunctionPass, register_pass
    from numba.core.untyped_passes import IRProcessing

    binary, unary = _operations()

    class CheckIntegers(FunctionPass):  # type: ignore[misc]
        _name = "millstream_check_integers"

        def __init__(self) -> None:
            FunctionPass.__init__(self)

        def run_pass(self, state: Any) -> bool:
            for block in state.func_ir.blocks.values():
                block.body = [made for statement in block.body for made in self.replaced(block, statement)]
            state.func_ir._definitions = ir_utils.build_definitions(state.func_ir.blocks)
            return True

        def replaced(self, block: Any, statement: Any) -> list[Any]:
            value = getattr(statement, "value", None)
            if not isinstance(statement, ir.Assign) or not isinstance(value, ir.Expr):
                return [statement]
            if value.op == "binop" and value.fn in binary:
                function, arguments = binary[value.fn], [value.lhs, value.rhs]
            elif value.op == "inplace_binop" and value.immutable_fn in binary:
                function, arguments = binary[value.immutable_fn], [value.lhs, value.rhs]
            elif value.op == "unary" and value.fn in unary:
                function, arguments = unary[value.fn], [value.value]
            else:
                return [statement]
            name = ir.Var(block.scope, ir_utils.mk_unique_var("checked"), statement.loc)
            call = ir.Expr.call(name, arguments, (), statement.loc)
            found = ir.Global(name.name, function, statement.loc)
            return [ir.Assign(found, name, statement.loc), ir.Assign(call, statement.target, statement.loc)]

    register_pass(mutates_CFG=False, analysis_only=False)(CheckIntegers)

    class Checked(CompilerBase):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
            manager.add_pass_after(CheckIntegers, IRProcessing)
            manager.finalize()
            return [manager]

    return Checked


def _operations() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return the function that computes each operator."""
    from numba import njit, types
    from numba.extending import intrinsic, overload
    from numpy import uint64

    zero, one, enough = uint64(0), uint64(1), uint64(1 << 56)

    def flagged(instruction: str) -> Any:
        def operation(context: Any, left: Any, right: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                pair = getattr(builder, instruction)(*arguments)
                value, flag = builder.extract_value(pair, 0), builder.extract_value(pair, 1)
                return context.make_tuple(builder, signature.return_type, [value, flag])

            return types.Tuple((types.int64, types.boolean))(types.int64, types.int64), generate

        return intrinsic(operation)

    add, sub, mul = (flagged(f"s{name}_with_overflow") for name in ("add", "sub", "mul"))

    def are_whole(*kinds: Any) -> bool:
        return all(isinstance(kind, (types.Integer, types.Boolean)) for kind in kinds)

    def of(name: str, whole: Callable[..., Any], other: Callable[..., Any]) -> Any:
        # What numba looks up: compiled code runs one of the two, and Python never calls it.
        def operation(*values: Any) -> Any:
            raise NotImplementedError(name)

        def choose_one(a: Any) -> Any:
            return whole if are_whole(a) else other

        def choose_two(a: Any, b: Any) -> Any:
            return whole if are_whole(a, b) else other

        overload(operation)(choose_one if name == "minus" else choose_two)
        return operation

    def whole_add(a: Any, b: Any) -> Any:
        value, is_over = add(int(a), int(b))
        if is_over:
            raise OverflowError("a sum does not fit 64 bits")
        return value

    def whole_sub(a: Any, b: Any) -> Any:
        value, is_over = sub(int(a), int(b))
        if is_over:
            raise OverflowError("a difference does not fit 64 bits")
        return value

    def whole_mul(a: Any, b: Any) -> Any:
        value, is_over = mul(int(a), int(b))
        if is_over:
            raise OverflowError("a product does not fit 64 bits")
        return value

    def whole_neg(a: Any) -> Any:
        value, is_over = sub(0, int(a))
        if is_over:
            raise OverflowError("a number does not fit 64 bits")
        return value

    def whole_pow(a: Any, b: Any) -> Any:
        base, left, power = int(a), int(b), 1
        if left < 0:
            raise OverflowError("compiled code has no whole number to a negative power; write x ** -1.0")
        while left:
            if left & 1:
                power, is_over = mul(power, base)
                if is_over:
                    raise OverflowError("a power does not fit 64 bits")
            left >>= 1
            if left:
                base, is_over = mul(base, base)
                if is_over:
                    raise OverflowError("a power does not fit 64 bits")
        return power

    def whole_shift(a: Any, b: Any) -> Any:
        value, by = int(a), int(b)
        if by < 0:
            raise ValueError("negative shift count")
        if value != 0 and by > 62:
            raise OverflowError("a shifted number does not fit 64 bits")
        shifted = value << by if value != 0 else 0
        if value != 0 and (shifted >> by) != value:
            raise OverflowError("a shifted number does not fit 64 bits")
        return shifted

    def size(a: Any) -> Any:
        return uint64(a) if a >= 0 else uint64(-(a + 1)) + one

    size_of = njit(size)

    def whole_over(a: Any, b: Any) -> Any:
        dividend, divisor = int(a), int(b)
        if divisor == 0:
            raise ZeroDivisionError("division by zero")
        if -_FLOAT_MAX <= dividend <= _FLOAT_MAX and -_FLOAT_MAX <= divisor <= _FLOAT_MAX:
            return float(dividend) / float(divisor)
        # Long division, bit by bit, until there are more bits than a float has; what is left over is kept as the last one.
        rest, by = size_of(dividend), size_of(divisor)
        quotient, places = rest // by, 0
        rest -= quotient * by
        while quotient < enough and (rest != zero or quotient != zero) and places < _PLACES_MAX:
            # The double of the rest may need a 65th bit.
            is_large = rest >= by - rest
            rest = rest - (by - rest) if is_large else rest + rest
            quotient = quotient + quotient + (one if is_large else zero)
            places += 1
        if rest != zero:
            quotient |= one
        near = float(quotient) * 2.0**-places
        return -near if (dividend < 0) != (divisor < 0) else near

    def other_over(a: Any, b: Any) -> Any:
        return a / b

    def other_plus(a: Any, b: Any) -> Any:
        return a + b

    def other_less(a: Any, b: Any) -> Any:
        return a - b

    def other_times(a: Any, b: Any) -> Any:
        return a * b

    def other_power(a: Any, b: Any) -> Any:
        return a**b

    def other_shifted(a: Any, b: Any) -> Any:
        return a << b

    def other_minus(a: Any) -> Any:
        return -a

    binary = {
        operator.add: of("plus", whole_add, other_plus),
        operator.sub: of("less", whole_sub, other_less),
        operator.mul: of("times", whole_mul, other_times),
        operator.truediv: of("over", whole_over, other_over),
        operator.pow: of("power", whole_pow, other_power),
        operator.lshift: of("shifted", whole_shift, other_shifted),
    }
    return binary, {operator.neg: of("minus", whole_neg, other_minus)}
