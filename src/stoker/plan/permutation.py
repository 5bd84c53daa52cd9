"""A shuffle in constant memory: a keyed bijection of 0 … n-1, computed position by position.

The method is the generalised Feistel cipher with cycle walking of J. Black and P. Rogaway,
"Ciphers with Arbitrary Finite Domains", CT-RSA 2002. A position is written as a pair (left, right)
in Z_a × Z_b, with a·b barely above n. Each round adds a hash of one half to the other, modulo its
size; this is invertible for any hash. A result outside 0 … n-1 is enciphered again. The hash is the
finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

#: Rounds of the network. With large halves, four make a pseudorandom permutation (Luby and Rackoff, 1988). Small halves
#: mix slowly: below 16 rounds, a chi-square test on pairs of 5 … 12 positions distinguishes them from random ones.
_ROUNDS_LARGE, _ROUNDS_SMALL, _SMALL = 8, 24, 4096

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MUL1 = 0xBF58476D1CE4E5B9
_MUL2 = 0x94D049BB133111EB
#: The constants of `mix_array`, as arrays: converting them takes longer than hashing a small batch.
_CONSTANTS = [np.array(number, np.uint64) for number in (_GOLDEN, _MUL1, _MUL2, 30, 27, 31)]


def mix(*words: int) -> int:
    """Hash integers of any size and sign to 64 bits. The result is the same in every process and release.

    >>> mix(7, 0) == mix(7, 0), mix(7, 0) == mix(0, 7)
    (True, False)
    """
    state = 0
    for word in words:
        state = (state ^ (word & _MASK)) + _GOLDEN & _MASK
        state = (state ^ state >> 30) * _MUL1 & _MASK
        state = (state ^ state >> 27) * _MUL2 & _MASK
        state ^= state >> 31
    return state


def mix_array(words: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """Hash each of `words` with `key` to 64 bits. Does not modify `words`."""
    golden, mul1, mul2, high, middle, low = _CONSTANTS
    state: npt.NDArray[np.uint64] = words * golden
    state ^= np.uint64(key)
    state ^= state >> high
    state *= mul1
    state ^= state >> middle
    state *= mul2
    state ^= state >> low
    return state


class Permutation:
    """A pseudorandom permutation of 0 … n-1, in O(1) memory and O(1) time per position.

    Args:
        n: number of positions, 1 … 2**63 - 1, the largest possible `len()`.
        key: any integer. Different keys give unrelated permutations.

    Example:
        >>> order = Permutation(10**9, key=7)
        >>> len(set(order(np.arange(1000)).tolist()))
        1000
        >>> sorted(Permutation(5, key=1)(np.arange(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, key: int) -> None:
        if not 1 <= n < 2**63:
            raise ValueError(f"a permutation needs 1 <= n < 2**63, got {n}")
        self.n = n
        self._left = math.isqrt(n - 1) + 1
        self._right = -(-n // self._left)
        rounds = _ROUNDS_SMALL if n <= _SMALL else _ROUNDS_LARGE
        self._keys = [mix(key, number) for number in range(rounds)]

    def __call__(self, positions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The examples at `positions`, an int64 array of the same length."""
        found = self._encipher(positions.astype(np.uint64))
        outside = np.flatnonzero(found >= self.n)
        while outside.size:
            found[outside] = self._encipher(found[outside])
            outside = outside[found[outside] >= self.n]
        return found.astype(np.int64)

    def _encipher(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        right, left = np.divmod(values, np.uint64(self._left))
        for number, key in enumerate(self._keys):
            if number % 2:
                right = _add(right, mix_array(left, key), self._right)
            else:
                left = _add(left, mix_array(right, key), self._left)
        found: npt.NDArray[np.uint64] = left + right * np.uint64(self._left)
        return found


def _add(half: npt.NDArray[np.uint64], noise: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint64]:
    """(half + a number drawn from `noise`) modulo `size`. Uses multiply and shift: division is five times slower."""
    noise >>= np.uint64(32)
    noise *= np.uint64(size)
    noise >>= np.uint64(32)
    noise += half
    noise[noise >= size] -= np.uint64(size)
    return noise
