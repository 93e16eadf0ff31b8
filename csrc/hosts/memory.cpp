#include "hosts/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>

namespace ek {
namespace {

constexpr std::align_val_t kAlign{kWorkspaceAlign}, kPage{size_t{1} << 21};

// Both sides of an allocation have to name the same one.
std::align_val_t align_of(int64_t bytes) { return bytes >= 2 * static_cast<int64_t>(kPage) ? kPage : kAlign; }

Workspace allocate(int workers, int64_t bytes) {
  const std::align_val_t align = align_of(bytes);
  void* data = ::operator new(static_cast<size_t>(bytes), align);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (align == kPage) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // advice: it may fail
#endif
  return {data, workers, bytes};
}

}  // namespace

Memory::Memory(int workers, int64_t bytes) : workspace(allocate(workers, workers * aligned(bytes))) {}

Memory::~Memory() { ::operator delete(workspace.data, align_of(workspace.bytes)); }

}  // namespace ek
