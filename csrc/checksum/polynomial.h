// Arithmetic of CRC-32C as polynomials over GF(2) modulo the Castagnoli polynomial.
//
// Bit-reflected: the most significant bit of a word is the coefficient of x^0. A CRC of two pieces
// laid end to end is crc(second) + crc(first) * x^(8 * bytes of second).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace hpresil::crc32c_detail {

constexpr std::uint32_t kPolynomial = 0x82F63B78;
constexpr std::uint32_t kOne = 0x80000000;  // x^0

constexpr std::uint32_t times_x(std::uint32_t a) { return (a >> 1) ^ ((a & 1) != 0 ? kPolynomial : 0); }

constexpr std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
  for (std::uint32_t bit = kOne; bit != 0; bit >>= 1, b = times_x(b)) {
    product ^= (a & bit) != 0 ? b : 0;
  }
  return product;
}

// x^(8 * bytes).
constexpr std::uint32_t power_of_bytes(std::uint64_t bytes) {
  std::uint32_t result = kOne;
  std::uint32_t square = times_x(kOne);  // x
  for (int i = 0; i < 3; ++i) {
    square = multiply(square, square);  // x^8
  }
  for (; bytes != 0; bytes >>= 1, square = multiply(square, square)) {
    if ((bytes & 1) != 0) {
      result = multiply(result, square);
    }
  }
  return result;
}

// Multiplication by a fixed power of x as four table look-ups.
class Shift {
 public:
  explicit constexpr Shift(std::uint64_t bytes) {
    const std::uint32_t factor = power_of_bytes(bytes);
    for (std::uint32_t place = 0; place < 4; ++place) {
      for (std::uint32_t value = 0; value < 256; ++value) {
        table_[place][value] = multiply(factor, value << (8 * place));
      }
    }
  }
  [[nodiscard]] constexpr std::uint32_t operator()(std::uint32_t crc) const {
    return table_[0][crc & 0xFF] ^ table_[1][(crc >> 8) & 0xFF] ^ table_[2][(crc >> 16) & 0xFF] ^
           table_[3][crc >> 24];
  }

 private:
  std::array<std::array<std::uint32_t, 256>, 4> table_{};
};

}  // namespace hpresil::crc32c_detail
