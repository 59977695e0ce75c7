# yolo-prune, AGPL-3.0 license
"""The names of torch's operations, by what they do to channels: tables for operations.py, as torch 2.14 has them."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(","))


_UNARY = _names("""
    abs, acos, acosh, asin, asinh, atan, atanh, ceil, cos, cosh, deg2rad, erf, erfc, exp, exp2, expm1, floor,
    frac, log, log10, log1p, log2, logit, nan_to_num, neg, negative, positive, rad2deg, reciprocal, round, rsqrt,
    sgn, sigmoid, sign, sin, sinh, sqrt, square, tan, tanh, trunc, bitwise_not, logical_not, isnan, isinf,
    isfinite, clamp, clamp_min, clamp_max, clip, expit
""")
_ACTIVATIONS = _names("""
    relu, relu6, elu, selu, celu, leaky_relu, rrelu, gelu, silu, mish, softplus, softshrink, softsign,
    hardshrink, hardsigmoid, hardswish, hardtanh, logsigmoid, log_sigmoid, tanhshrink, threshold, _threshold,
    dropout, dropout1d, dropout2d, dropout3d, alpha_dropout, feature_alpha_dropout, feature_dropout
""")
_BINARY = _names("""
    add, sub, subtract, rsub, mul, multiply, div, divide, true_divide, floor_divide, fmod, pow, remainder,
    float_power, maximum, minimum, fmax, fmin, atan2, arctan2, hypot, copysign, lerp, eq, ne, gt, ge, lt, le,
    greater, greater_equal, less, less_equal, not_equal, logical_and, logical_or, logical_xor, bitwise_and,
    bitwise_or, bitwise_xor, where, addcmul, addcdiv, xlogy, expand_as, __add__, __radd__, __iadd__, __sub__,
    __rsub__, __isub__, __mul__, __rmul__, __imul__, __truediv__, __rtruediv__, __itruediv__, __div__, __rdiv__,
    __idiv__, __pow__, __rpow__, __ipow__, __neg__, __pos__, __abs__, __invert__, __and__, __or__, __xor__,
    __eq__, __ne__, __gt__, __ge__, __lt__, __le__, __floordiv__, __mod__
""")
_CASTS = _names("""
    contiguous, clone, float, half, bfloat16, double, bool, int, long, to, type, type_as, detach, alias,
    requires_grad_, cpu, cuda, get data, get real, pin_memory, detach_
""")
ELEMENTWISE = _UNARY | _ACTIVATIONS | _BINARY | _CASTS
# Channels stay, pixels change.
SPATIAL = _names("""
    max_pool2d, _max_pool2d, boolean_dispatch, avg_pool2d, adaptive_avg_pool2d, adaptive_max_pool2d, lp_pool2d,
    fractional_max_pool2d, interpolate, upsample, upsample_nearest, upsample_bilinear, pad, zero_pad2d
""")
MOVES = _names("""
    permute, transpose, swapaxes, swapdims, movedim, moveaxis, t, flatten, unsqueeze, squeeze, select, get T,
    get mT, get H, get mH, adjoint
""")
EQUAL_PARTS = {"chunk", "unsafe_chunk", "unbind"}
SIZED_PARTS = {"split", "unsafe_split", "split_with_sizes", "tensor_split", "unsafe_split_with_sizes"}
REDUCTIONS = {"sum", "mean", "nanmean", "nansum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "prod"}
ALONG = {"softmax": 1, "log_softmax": 1, "softmin": 1, "cumsum": 1, "cumprod": 1, "normalize": 2}  # place of `dim`
SHAPES = {"view", "reshape", "expand", "repeat"}  # take the size of each dimension
# Nothing of what the tensor holds goes into the result.
BLIND = _names("""
    zeros_like, ones_like, full_like, empty_like, rand_like, randn_like, new_zeros, new_ones, new_full,
    new_empty, new_tensor, new
""")
# Only the size, the type or the place of a tensor is read.
READS = _names("""
    size, dim, ndimension, numel, nelement, stride, storage_offset, is_contiguous, element_size, get_device,
    is_floating_point, is_complex, is_signed, is_tensor, is_same_size, result_type, __len__, __hash__, __repr__,
    __format__, __str__, is_pinned, is_inference, has_names, is_set_to, can_cast, promote_types,
    get_default_dtype, set_grad_enabled, _set_grad_enabled, nelement, is_shared, register_hook, retain_grad,
    __dir__, _is_view, dense_dim, sparse_dim, set_default_device, get shape, get dtype, get device, get ndim,
    get requires_grad, get grad_fn, get is_cuda, get layout, get names, get itemsize, get nbytes, get is_leaf,
    get grad, get _version, get is_sparse, get is_mps, get is_cpu, get is_meta, get is_nested, get _base
""")
