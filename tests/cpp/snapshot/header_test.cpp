// The first page of a frame: what was packed is parsed, and nothing else.
#include "snapshot/header.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "snapshot/small_frame.h"

namespace hpresil {
namespace {

std::string refusal(const HeaderPage& page, std::uint64_t file_bytes = SmallFrame::kBytes) {
  try {
    parse_header(page, file_bytes);
    return "";
  } catch (const NativeError& error) {
    return error.what();
  }
}

std::string refusal(const FrameHeader& header) { return refusal(pack_header(header)); }

TEST(FrameHeader, ComesBackAsItWasPacked) {
  const FrameHeader header = SmallFrame::header(-3, 24);
  EXPECT_EQ(parse_header(pack_header(header), SmallFrame::kBytes), header);
}

TEST(FrameHeader, EveryBitOfThePageCounts) {
  const HeaderPage page = pack_header(SmallFrame::header(3, 24));
  for (std::size_t bit = 0; bit < 8 * kHeaderBytes; ++bit) {
    HeaderPage damaged = page;
    damaged[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    EXPECT_NE(refusal(damaged), "") << "bit " << bit;
  }
}

TEST(FrameHeader, SaysWhatIsWrong) {
  const FrameHeader good = SmallFrame::header(3, 24);
  HeaderPage page = pack_header(good);
  EXPECT_NE(refusal(page, SmallFrame::kBytes - 1).find("truncated"), std::string::npos);
  page[kSealOffset + 3] = page[kSealOffset + 2] = page[kSealOffset + 1] = page[kSealOffset] = std::byte{0};
  EXPECT_NE(refusal(page).find("damaged header"), std::string::npos);
  std::fill(page.begin() + kSealOffset, page.end(), std::byte{0});
  EXPECT_NE(refusal(page).find("not sealed"), std::string::npos);
  EXPECT_NE(refusal(HeaderPage{}).find("not sealed"), std::string::npos);
}

TEST(FrameHeader, LeadsNowhereOutsideTheFrame) {
  const FrameHeader good = SmallFrame::header(3, 24);
  FrameHeader bad = good;
  bad.manifest_bytes = ~std::uint64_t{0} - 100;
  EXPECT_NE(refusal(bad).find("its manifest"), std::string::npos);
  bad = good;
  bad.sums_offset = SmallFrame::kBytes - 8;
  EXPECT_NE(refusal(bad).find("its checksums"), std::string::npos);
  bad = good;
  bad.sections[3].nbytes = SmallFrame::kBytes;
  EXPECT_NE(refusal(bad).find("a section"), std::string::npos);
  bad = good;
  bad.sections[1].offset = 0;
  EXPECT_NE(refusal(bad).find("a section"), std::string::npos);
  bad = good;
  bad.sections[0].tensors = 5;
  EXPECT_NE(refusal(bad).find("the number of its tensors"), std::string::npos);
  bad = good;
  bad.there = 4;
  EXPECT_NE(refusal(bad).find("the number of its tensors"), std::string::npos);
  bad = good;
  bad.frame_bytes = 17;
  EXPECT_NE(refusal(bad).find("its size"), std::string::npos);
}

}  // namespace
}  // namespace hpresil
