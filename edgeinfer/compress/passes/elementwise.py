"""Operators for which the order of axes does not matter."""

from __future__ import annotations

#: every element alone: the first input is the data, the others are settings
UNARY = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Silu Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh
    ThresholdedRelu""".split()
)
#: element by element on inputs that are broadcast to one shape
BROADCAST = frozenset(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor".split()
)
