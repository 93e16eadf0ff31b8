// What moving points is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "sample/sample_plan.h"

namespace ek {

// Points of a task.
constexpr int64_t kPointsPerTask = 4096;

struct PointsPlan {
  SamplePlan sample;  // the image is the flow; coordinates and out are vectors [N, P, dims]: channels-last
  int64_t tasks_per_batch = 1;
};

EK_DECLARE_BODIES(point_tasks)  // context is a PointsPlan

}  // namespace ek
