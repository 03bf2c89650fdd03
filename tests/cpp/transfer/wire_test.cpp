// Frames on the wire: what is written is read back, what is outside its limits is no frame.
#include "transfer/wire.h"

#include <gtest/gtest.h>

namespace hpresil::transfer {
namespace {

TEST(Wire, ReadsBackWhatItWrote) {
  const Request request = {.wish = Wish::chunk, .nbytes = 4096, .offset = 1ULL << 40};
  const auto read = parse_request(encode(request));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->offset, request.offset);
  EXPECT_EQ(read->nbytes, request.nbytes);
  Answer answer = {.status = Status::gone, .nbytes = 5, .offset = 6, .origin = {}, .content = {}};
  answer.origin.fill(std::byte{7});
  answer.content.fill(std::byte{8});
  const auto back = parse_answer(encode(answer));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->status, Status::gone);
  EXPECT_EQ(back->origin, answer.origin);
  EXPECT_EQ(back->content, answer.content);
}

TEST(Wire, RefusesRequestsOutsideTheLimits) {
  EXPECT_FALSE(parse_request(encode(Request{Wish::chunk, 0, 0})));
  EXPECT_FALSE(parse_request(encode(Request{Wish::chunk, kLargestChunk + 1, 0})));
  EXPECT_FALSE(parse_request(encode(Request{Wish::chunk, 1, kLargestFrame})));
  EXPECT_FALSE(parse_request(encode(Request{Wish::still_valid, 1, 0})));
  EXPECT_FALSE(parse_request(encode(Request{static_cast<Wish>(3), 1, 0})));
  EXPECT_TRUE(parse_request(encode(Request{Wish::still_valid, 0, 0})));
}

TEST(Wire, RefusesHellosOutsideTheLimits) {
  const Hello good = {.generation = 1,
                      .version = 2,
                      .chunk_bytes = kLeastChunk,
                      .wait_ms = 0,
                      .purpose = Purpose::size,
                      .nonce = {}};
  EXPECT_TRUE(parse_hello(encode(good)));
  for (const auto change : {0, 1, 2, 3}) {
    Hello bad = good;
    bad.chunk_bytes = change == 0 ? kLeastChunk - 1 : change == 1 ? kLargestChunk + 1 : bad.chunk_bytes;
    bad.wait_ms = change == 2 ? kLongestWaitMs + 1 : 0;
    bad.purpose = change == 3 ? static_cast<Purpose>(9) : bad.purpose;
    EXPECT_FALSE(parse_hello(encode(bad))) << change;
  }
}

}  // namespace
}  // namespace hpresil::transfer
