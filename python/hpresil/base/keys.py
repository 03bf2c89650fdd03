"""Keys for counter-based randomness: one hash from a seed and a place to 64 bits.

Torch's CPU generator keeps only the low 32 bits of a seed, so a counter put into the high bits
would repeat the same stream; hashing spreads every part over all bits.
"""

from __future__ import annotations

import hashlib


def key(seed: int, *parts: int | str) -> int:
    """Return 64 bits that depend on ``seed`` and every part (BLAKE2b of their text)."""
    text = "/".join([str(seed), *(f"{type(part).__name__[0]}{part}" for part in parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
