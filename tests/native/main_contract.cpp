// Runs every operator on random problems in every way, and prints a digest of the results of each:
//     contract [problems] [callers] [operator]
// Several callers run the same problems at once and have to get the same digest.
#include <cinttypes>
#include <thread>

#include "check.h"

namespace test {
namespace {

struct Tally {
  uint64_t digest = 0;
  int64_t refused = 0;
};

Tally exercise(const std::string& name, Exercise exercise, int64_t problems) {
  Tally tally;
  for (int64_t i = 0; i < problems; ++i) {
    // A few are large enough for several tasks.
    Random random(static_cast<uint64_t>(i), i % 32 == 31 ? 80000 : 4096);
    Check check(name + " " + std::to_string(i));
    exercise(random, check);
    tally.digest = tally.digest * 31 + check.digest();
    tally.refused += check.refused();
  }
  return tally;
}

bool run(const std::string& name, Exercise function, int64_t problems, int callers) {
  std::vector<Tally> tallies(static_cast<size_t>(callers));
  std::vector<std::thread> threads;
  for (Tally& tally : tallies) {
    threads.emplace_back([&] { tally = exercise(name, function, problems); });
  }
  for (std::thread& thread : threads) thread.join();
  const Tally& first = tallies[0];
  std::printf("%s %016" PRIx64 " %" PRId64 " of %" PRId64 " refused\n", name.c_str(), first.digest,
              first.refused, problems);
  for (const Tally& tally : tallies) {
    if (tally.digest != first.digest) {
      std::fprintf(stderr, "%s: callers at the same time got different results\n", name.c_str());
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace test

int main(int count, char** values) {
  const int64_t problems = count > 1 ? std::atoll(values[1]) : 1000;
  const int callers = count > 2 ? std::atoi(values[2]) : 1;
  std::printf("isas");
  for (ek::Isa isa : ek::available_isas()) std::printf(" %s", ek::isa_name(isa));
  std::printf("\n");
  bool good = true;
  for (const auto& [name, exercise] : test::operators()) {
    if (count <= 3 || name == values[3]) good = test::run(name, exercise, problems, callers) && good;
  }
  return good ? 0 : 1;
}
