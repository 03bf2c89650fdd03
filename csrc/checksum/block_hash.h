// A 64-bit hash for every block of 1 MiB: what has changed, and where two replicas differ.
//
// Device memory is hashed where it lies (device/block_hash.cu), host memory here; both give equal values
// at every instruction-set level, address, number of threads and order of work. It finds damage and
// change, not intent: it has no key, so whoever wants a collision can make one. Checksums of what is
// moved or kept stay CRC-32C.
//
// The construction: multiply-accumulate lanes as in XXH3 (Y. Collet, BSD-2) and its model, the NH family of
// UMAC (Black et al., CRYPTO 1999), folded by 64x64-bit products whose halves are xored (as wyhash and XXH3
// do), finished with SplitMix64's mixer (Steele et al., OOPSLA 2014). Values are not those of XXH3: there the
// stripes of a block are chained, here all parts of a block are independent, as a GPU wants it.
//
//   words     a block is little-endian words of 64 bits, zeros appended up to a multiple of 256 bytes
//   lanes     word j of a segment (16 KiB, 64 stripes of 32 words) belongs to lane j mod 32, stripe j div 32
//   acc[i]    = sum over stripes s of  lo(x) * hi(x) + word[s][i ^ 1],  x = word[s][i] ^ key[s + i],
//             lo and hi the halves of 32 bits, modulo 2^64
//   segment   = sum over even i of  fold(acc[i] ^ key[96 + i], acc[i + 1] ^ key[97 + i])
//   block     = mix(nbytes * kGolden + sum over segments n of mix(segment + (n + 1) * kGolden))
//   key[k]    = mix((k + 1) * kGolden + kSeed)
//
// Thread safe; nothing throws but bad arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu.h"

namespace hpresil {

constexpr std::size_t kHashBlockBytes = std::size_t{1} << 20;

// The hash of each block of `data`, the last one possibly shorter; none for no bytes. On up to `threads`
// threads.
std::vector<std::uint64_t> block_hashes(const std::byte* data, std::size_t nbytes, int threads,
                                        CpuLevel level);

// The hash of one block of at most kHashBlockBytes, which may be empty.
std::uint64_t block_hash(const std::byte* data, std::size_t nbytes, CpuLevel level);

}  // namespace hpresil
