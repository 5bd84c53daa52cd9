"""Arrays encoded as TensorFlow's `TensorProto`, without TensorFlow or protobuf. Pure.

The format is the message `TensorProto` of tensorflow/core/framework/tensor.proto (its shape:
tensor_shape.proto, its dtypes: types.proto) in protobuf's wire format. The bytes equal those of
`tf.io.serialize_tensor` (compared under 2.21; no difference is known), and `tf.io.parse_tensor` reads
them. From 2 GiB on, the first crashes and the second refuses; this module still writes such messages.

    dtype            08 number
    tensor_shape     12 length, then for each dimension: 12 length 08 size; a size of 0 is omitted
    tensor_content   22 length, then the elements, little-endian in C order; omitted if there are none
    string_val       42 length, then the string; once for each string
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.structure.values import encoded

#: The number of each dtype in TensorFlow's enum `DataType`.
DTYPE_NUMBERS = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}


def header(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> bytes:
    r"""The bytes before the elements: `header + array.tobytes()` is the message of a little-endian array.

    Args:
        shape: shape of the array.
        dtype: a dtype of numbers or bools; `TypeError` for any other.
        nbytes: bytes that the elements take.

    >>> header((2, 3), np.dtype(np.uint8), 6)
    b'\x08\x04\x12\x08\x12\x02\x08\x02\x12\x02\x08\x03"\x06'
    """
    number = DTYPE_NUMBERS.get(dtype.name)
    if number is None:
        raise TypeError(f"dtype {dtype.name!r} has no TensorProto. Expected one of {', '.join(DTYPE_NUMBERS)}.")
    return _head(shape, number) + (b'"' + _varint(nbytes) if nbytes else b"")


def tensor_bytes(array: npt.NDArray[Any]) -> bytes:
    r"""The message of `array`, which holds numbers, bools or strings (`bytes`, or `str` as UTF-8), in any layout.

    Raises `TypeError` for other dtypes, and `stoker.structure.forms.Misfit` for an object array of other objects.

    >>> tensor_bytes(np.array([1, 2], np.uint8))
    b'\x08\x04\x12\x04\x12\x02\x08\x02"\x02\x01\x02'
    >>> tensor_bytes(np.array(["a", ""]))
    b'\x08\x07\x12\x04\x12\x02\x08\x02B\x01aB\x00'
    """
    if array.dtype.kind in "OSUT":
        return string_tensor([encoded(text) for text in array.reshape(-1).tolist()], array.shape)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return b"".join((header(array.shape, array.dtype, array.nbytes), little.tobytes()))


def string_tensor(values: Sequence[bytes], shape: tuple[int, ...]) -> bytes:
    r"""The message of a string tensor.

    Args:
        values: the strings, flat in C order; `ValueError` if their number does not match `shape`.
        shape: shape of the tensor.

    >>> string_tensor([b"cat", b""], (2,))
    b'\x08\x07\x12\x04\x12\x02\x08\x02B\x03catB\x00'
    """
    count = len(values)
    if count != math.prod(shape):  # TensorFlow would repeat the last string
        raise ValueError(f"got {count} strings for shape {shape}, which holds {math.prod(shape)}.")
    parts = [_head(shape, DTYPE_NUMBERS["string"])] * (1 + 2 * count)
    parts[1::2] = [_SHORT_TAGS[size] if size < 128 else _string_tag(size) for size in map(len, values)]
    parts[2::2] = values
    return b"".join(parts)


def _head(shape: tuple[int, ...], number: int) -> bytes:
    """The fields `dtype` and `tensor_shape`."""
    sizes = [b"\x08" + _varint(size) if size else b"" for size in shape]
    dimensions = b"".join([bytes((0x12, len(size))) + size for size in sizes])
    return bytes((0x08, number, 0x12)) + _varint(len(dimensions)) + dimensions


def _varint(number: int) -> bytes:
    """Encode `number` with seven bits per byte, lowest first. The high bit marks that more bytes follow."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


@functools.lru_cache(1 << 14)
def _string_tag(size: int) -> bytes:
    """The tag and length before a string of `size` bytes."""
    return b"B" + _varint(size)


_SHORT_TAGS = [_string_tag(size) for size in range(128)]
