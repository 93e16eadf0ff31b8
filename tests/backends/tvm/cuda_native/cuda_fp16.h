#pragma once
#include "processor.h"
