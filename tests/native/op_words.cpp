// The words that all operators are made of, one by one.
#include "check.h"
#include "words.h"

namespace test {
namespace {

using Body = void (*)(const Words& words);

Body body(ek::Isa isa) {
  switch (isa) {
#if EK_X86
    case ek::Isa::kAvx512:
      return ek::avx512::words;
    case ek::Isa::kAvx2:
      return ek::avx2::words;
#elif EK_ARM64
    case ek::Isa::kNeon:
      return ek::neon::words;
#endif
    default:
      return ek::scalar::words;
  }
}

template <class T>
Array<T> integers(Source& source, int64_t count, int64_t low, int64_t high) {
  Array<T> array(count, source.between(0, 1));
  Random random(source.bits());
  for (int64_t i = 0; i < count; ++i) array[i] = static_cast<T>(random.between(low, high));
  return array;
}

Array<ek::Half> halves(Source& source, int64_t count) {
  Array<ek::Half> array(count, source.between(0, 1));
  Random random(source.bits());
  for (int64_t i = 0; i < count; ++i) array[i].bits = static_cast<uint16_t>(random.bits());
  return array;
}

// Floats of every size: their bits are random.
Array<float> wild(Source& source, int64_t count) {
  Array<float> array(count, source.between(0, 3));
  Random random(source.bits());
  for (int64_t i = 0; i < count; ++i) array[i] = from_bits(random.bits());
  return array;
}

void exercise(Source& source, Check& check) {
  Words words;
  words.count = 16 * source.between(1, 4);
  words.tail = source.between(1, 40);
  const auto numbers = [&](int64_t count) {
    return source.one_in(2) ? wild(source, count)
                            : floats(source, count, source.any({2.0f, 300.0f, 70000.0f}));
  };
  const Array<float> a = numbers(words.count), b = numbers(words.count), odd = numbers(words.tail);
  const Array<float> table = numbers(kTable);
  const auto small = [&] { return integers<int32_t>(source, words.count, -30000, 30000); };
  const Array<int32_t> i = small(), j = small();
  const Array<int32_t> index = integers<int32_t>(source, words.count, 0, kTable - 2);
  const Array<ek::Half> half = halves(source, words.count), half_table = halves(source, kTable);
  const Array<int16_t> shorts = integers<int16_t>(source, words.count, -32768, 32767);
  const Array<int16_t> short_table = integers<int16_t>(source, kTable, -32768, 32767);
  const Array<uint8_t> bytes = integers<uint8_t>(source, words.count, 0, 255);
  words.a = a.data(), words.b = b.data(), words.odd = odd.data(), words.table = table.data();
  words.i = i.data(), words.j = j.data(), words.index = index.data();
  words.halves = half.data(), words.half_table = half_table.data();
  words.shorts = shorts.data(), words.short_table = short_table.data(), words.bytes = bytes.data();
  check.all([&](Run& run) {
    Words call = words;
    call.floats_out = run.output<float>(kFloatWords * call.count, 1);
    call.ints_out = run.output<int32_t>(kIntWords * call.count, 1);
    call.halves_out = run.output<ek::Half>(call.count, 1);
    call.shorts_out = run.output<int16_t>(call.count, 1);
    call.bytes_out = run.output<uint8_t>(call.count, 1);
    call.odd_out = run.output<float>(call.tail, 1);
    call.wrong_out = run.output<int32_t>(1);
    body(run.isa)(call);
    if (*call.wrong_out) check.give_up(run.name() + ": a word about all lanes is wrong");
  });
}

const Register registered("words", exercise);

}  // namespace
}  // namespace test
