"""CRC-32C and the block hash from their definitions, one bit or one word at a time."""

from __future__ import annotations

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
SEED = int.from_bytes(b"hpresil1", "big")
BLOCK, SEGMENT, STRIPE, LANES = 1 << 20, 16384, 256, 32


def crc32c(data: bytes, seed: int = 0) -> int:
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


KEYS = [mix((k + 1) * GOLDEN + SEED & WORD) for k in range(128)]


def fold(a: int, b: int) -> int:
    product = a * b
    return product & WORD ^ product >> 64


def segment_hash(data: bytes) -> int:
    lanes = [0] * LANES
    for stripe in range(0, len(data), STRIPE):
        row = data[stripe : stripe + STRIPE].ljust(STRIPE, b"\0")
        words = [int.from_bytes(row[i : i + 8], "little") for i in range(0, STRIPE, 8)]
        for i in range(LANES):
            x = words[i] ^ KEYS[stripe // STRIPE + i]
            lanes[i] += (x & 0xFFFFFFFF) * (x >> 32) + words[i ^ 1]
    return sum(
        fold(lanes[i] & WORD ^ KEYS[96 + i], lanes[i + 1] & WORD ^ KEYS[97 + i]) for i in range(0, LANES, 2)
    )


def block_hash(data: bytes) -> int:
    total = len(data) * GOLDEN
    for n in range(0, len(data), SEGMENT):
        total += mix(segment_hash(data[n : n + SEGMENT]) + (n // SEGMENT + 1) * GOLDEN & WORD)
    return mix(total & WORD)


def block_hashes(data: bytes) -> list[int]:
    return [block_hash(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
