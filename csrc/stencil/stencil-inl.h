// The sweep of one task of a pass. Included after one of common/simd_*-inl.h.
//
// The state after stage s of plane z is in slot z % ring of the stage's planes. Stage s comes s planes behind
// the first, where the stage before has just finished the plane ahead.
#pragma once

#include "common/box-inl.h"
#include "stencil/stencil_plan.h"

namespace ek {
namespace EK_ISA {

struct Span {
  int64_t begin, end;
};

EK_INLINE Span grown(int64_t begin, int64_t end, int64_t by, int64_t size) {
  return {begin > by ? begin - by : 0, end + by < size ? end + by : size};
}

// Repeats the ends of a row beside it: nothing flows across the border.
EK_INLINE void seal(float* row, int64_t w) {
  row[-1] = row[0];
  row[w] = row[w - 1];
}

EK_INLINE void copy_row(const float* from, float* to, int64_t w) {
  int64_t x = 0;
  for (; x + kLanes <= w; x += kLanes) store(to + x, load(from + x));
  for (; x < w; ++x) to[x] = from[x];
}

// What an operator is asked for, in a struct Op with a StencilShape of constants:
//   begin(sweep, z, y)         makes the fields of stage 0 where there is no state, given the image's row
//   resume(sweep, z, y)        completes rows that were read from a state
//   step(sweep, s, z, y)       makes the row of stage s from those of stage s - 1
//   first(sweep, s, z), next_strip ...
struct Sweep {
  const StencilPass& pass;
  StencilShape shape;
  float* memory;
  Span z, y;  // what the task owns

  EK_MEMBER Span planes(int s) const { return grown(z.begin, z.end, pass.halo - s, pass.image.d); }
  EK_MEMBER Span rows(int s) const { return grown(y.begin, y.end, pass.halo - s, pass.image.h); }
  EK_MEMBER int64_t stage_planes() const { return shape.ring * shape.fields + shape.spare; }
  EK_MEMBER float* at(int64_t plane, int64_t y_of) const {
    return memory + (plane * pass.height + (y_of - rows(0).begin)) * pass.pitch + kRowPad;
  }
  // A row of a field after stage s.
  EK_MEMBER float* row(int s, int field, int64_t z_of, int64_t y_of) const {
    return at(s * stage_planes() + (z_of % shape.ring) * shape.fields + field, y_of);
  }
  // The nearest row of the image to one that may be outside.
  EK_MEMBER float* near(int s, int field, int64_t z_of, int64_t y_of) const {
    const int64_t nz = z_of < 0 ? 0 : z_of < pass.image.d ? z_of : pass.image.d - 1;
    const int64_t ny = y_of < 0 ? 0 : y_of < pass.image.h ? y_of : pass.image.h - 1;
    return row(s, field, nz, ny);
  }
  EK_MEMBER float* spare(int s, int which, int64_t y_of) const {
    return at(s * stage_planes() + shape.ring * shape.fields + which, y_of);
  }
  EK_MEMBER float* image(int64_t z_of, int64_t y_of) const {
    return at((pass.stages + 1) * stage_planes() + z_of % (pass.stages + 2), y_of);
  }
  EK_MEMBER float* scratch(int which) const {
    const int64_t planes = (pass.stages + 1) * stage_planes() + (shape.image ? pass.stages + 2 : 0);
    return memory + (planes * pass.height + which) * pass.pitch + kRowPad;
  }
  EK_MEMBER int64_t state_row(int field, int64_t z_of, int64_t y_of) const {
    return ((field * pass.image.d + z_of) * pass.image.h + y_of) * pass.image.w;
  }
};

template <class Op>
EK_INLINE void load_plane(const Op& op, const Sweep& sweep, int64_t z) {
  const StencilPass& pass = sweep.pass;
  const Span rows = sweep.rows(0);
  for (int64_t y = rows.begin; y < rows.end; ++y) {
    if (sweep.shape.image || !pass.from) {
      float* to = sweep.shape.image ? sweep.image(z, y) : sweep.row(0, Op::kResult, z, y);
      read_box(pass.image, 0, {z, y, 0, 1, 1, pass.image.w}, Boundary::kEdge, to, pass.image.w);
    }
    if (pass.from) {
      for (int i = 0; i < sweep.shape.saved; ++i) {
        copy_row(pass.from + sweep.state_row(i, z, y), sweep.row(0, i, z, y), pass.image.w);
      }
    } else {
      op.begin(sweep, z, y);
    }
    op.seal_rows(sweep, 0, z, y);
  }
}

template <class Op>
EK_INLINE void save_plane(const Sweep& sweep, int64_t z) {
  const StencilPass& pass = sweep.pass;
  const int64_t w = pass.image.w;
  for (int64_t y = sweep.y.begin; y < sweep.y.end; ++y) {
    for (int i = 0; pass.to && i < sweep.shape.saved; ++i) {
      copy_row(sweep.row(pass.stages, i, z, y), pass.to + sweep.state_row(i, z, y), w);
    }
    if (pass.finish) {
      write_row(pass.out, (z * pass.image.h + y) * w, sweep.row(pass.stages, Op::kResult, z, y), w);
    }
  }
}

template <class Op>
EK_INLINE void run_sweep(const Op& op, const Sweep& sweep) {
  const StencilPass& pass = sweep.pass;
  const Span first = sweep.planes(0);
  const int last = pass.stages + (pass.sums ? 1 : 0);
  for (int64_t k = first.begin; k < sweep.z.end + last; ++k) {
    if (k < first.end) load_plane(op, sweep, k);
    for (int s = 1; s <= pass.stages; ++s) {
      const int64_t z = k - s;
      const Span planes = sweep.planes(s);
      if (z >= planes.begin && z < planes.end) op.step(sweep, s, z);
    }
    const int64_t z = k - pass.stages;
    if (z >= sweep.z.begin && z < sweep.z.end && (pass.to || pass.finish)) save_plane<Op>(sweep, z);
    if (pass.sums && z - 1 >= sweep.z.begin) {
      for (int64_t y = sweep.y.begin; y < sweep.y.end; ++y) {
        op.measure(sweep, pass.stages, z - 1, y, pass.sums + 2 * ((z - 1) * pass.image.h + y));
      }
    }
  }
}

// The body of workers [begin, end).
template <class Op>
EK_INLINE void sweep_tasks(const StencilPass& pass, const Op& op, int64_t begin, int64_t end) {
  take_tasks(pass.workers, begin, end, [&](int64_t task, char* memory) __attribute__((always_inline)) {
    const int64_t slab = task / pass.strips, strip = task - slab * pass.strips;
    const Sweep sweep = {pass, Op::shape(), reinterpret_cast<float*>(memory),
                         grown(slab * pass.planes, (slab + 1) * pass.planes, 0, pass.image.d),
                         grown(strip * pass.rows, (strip + 1) * pass.rows, 0, pass.image.h)};
    run_sweep(op, sweep);
  });
}

}  // namespace EK_ISA
}  // namespace ek
