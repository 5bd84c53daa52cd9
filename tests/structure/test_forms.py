"""Strings joined for a slot, and cut apart again."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.structure.forms import cut_strings, join_strings, object_array

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(shapes.flatmap(lambda shape: st.tuples(st.just(shape), st.lists(st.binary(), min_size=math.prod(shape)))))
@example(((3,), [b"\0", b"", b"a\0"]))
@example(((2, 1), [b"", b""]))
@example(((), ["\N{SNOWMAN}".encode()]))
def test_strings_are_cut_apart_as_they_were_joined(case: tuple[tuple[int, ...], list[bytes]]) -> None:
    shape, strings = case[0], case[1][: math.prod(case[0])]
    joined, ends = join_strings(strings)
    came = cut_strings(np.frombuffer(joined, np.uint8), ends.reshape(shape))
    assert (came.dtype, came.shape) == (object, shape)
    assert np.array_equal(came, object_array(strings).reshape(shape))
    assert all(type(string) is bytes for string in came.reshape(-1).tolist())
