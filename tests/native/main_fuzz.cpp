// What a fuzzer feeds: the first byte names the operator, the others are its problem. A refusal is fine; a
// crash, and a result that depends on the instruction set, is not.
#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  auto chosen = test::operators().begin();
  std::advance(chosen, data[0] % test::operators().size());
  test::Bytes source(data + 1, size - 1);
  test::Check check(chosen->first, false);
  chosen->second(source, check);
  return 0;
}
