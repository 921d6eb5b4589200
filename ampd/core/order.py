"""The data order: a stateless permutation of (seed, epoch), so that resuming mid-epoch costs O(1).

Position p of an epoch is mapped to a sample by a keyed Feistel network over the smallest even-bit domain that
holds the data set, walking the cycle until the result is in range (format-preserving encryption, Black and
Rogaway 2002). It is a bijection by construction, needs no memory, and any position can be asked for at once,
whatever the number of loader workers.
"""

from __future__ import annotations

import hashlib

_ROUNDS = 4  # Luby and Rackoff 1988: four rounds make a strong pseudo-random permutation


class DataOrder:
    """A permutation of range(size) for each epoch; `sample(epoch, position)` is pure."""

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"size={size}: an order needs at least one sample")
        self.size = size
        self.seed = seed
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half_bits) - 1
        self._keys: dict[int, tuple[int, ...]] = {}

    def sample(self, epoch: int, position: int) -> int:
        """The index of the sample at `position` (0 <= position < size) of `epoch`."""
        keys = self._keys_of(epoch)
        index = self._encrypt(position, keys)
        while index >= self.size:
            index = self._encrypt(index, keys)
        return index

    def batch(self, epoch: int, start: int, count: int) -> list[int]:
        """The samples at positions start .. start+count-1 of `epoch`."""
        return [self.sample(epoch, position) for position in range(start, start + count)]

    def _encrypt(self, value: int, keys: tuple[int, ...]) -> int:
        left, right = value >> self._half_bits, value & self._mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half_bits) | right

    def _keys_of(self, epoch: int) -> tuple[int, ...]:
        if epoch not in self._keys:
            digest = hashlib.sha256(f"ampd order {self.seed} {epoch}".encode()).digest()
            keys = tuple(int.from_bytes(digest[8 * r : 8 * r + 8], "little") for r in range(_ROUNDS))
            self._keys = {epoch: keys}
        return self._keys[epoch]


def _mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)
