// Smooth an image so that, around every voxel, it is a linear function of a guide (He, Sun and Tang, 2010).
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "guided/guided_plan.h"

namespace ek {

// Elements of spare memory that are needed. Refuses bad arguments (Error).
int64_t spare_floats(const Guided& args);

// The workspace of a worker, and how many workers can be of use. Refuses bad arguments (Error).
Workers needs(const Guided& args);

// Refuses bad arguments (Error).
void check(const Guided& args);

// Calls run(pass) for all axes in their order.
template <class Run>
void each_pass(const Guided& args, const Run& run) {
  GuidedPass pass;
  pass.image = args.image;
  pass.guided = args.guide.data != nullptr;
  pass.guide = pass.guided ? args.guide : args.image;
  pass.out = args.out;
  pass.epsilon = args.epsilon;
  pass.boundary = args.boundary;
  const int64_t size = args.image.elements();
  const int arrays = pass.guided ? kMostMoments : 2;
  int turn = 0, last_axis = 2;
  for (int axis = 1; axis >= 0; --axis) last_axis = args.reach[axis] > 0 ? axis : last_axis;
  for (const bool means : {false, true}) {
    for (int axis = 2; axis >= last_axis; --axis) {
      pass.means = means;
      pass.first = !means && axis == 2;
      pass.last = axis == last_axis;
      pass.axis = axis;
      pass.reach = args.reach[axis];
      pass.share = 1.0f / static_cast<float>(2 * pass.reach + 1);
      for (int i = 0; i < arrays; ++i) {
        pass.to[i] = args.spare + (turn * arrays + i) * size;
        pass.in[i] = args.spare + ((1 - turn) * arrays + i) * size;
      }
      run(pass);
      turn = 1 - turn;
    }
  }
}

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void guided_filter(const Guided& args, Isa isa, const Parallel& parallel);

}  // namespace ek
