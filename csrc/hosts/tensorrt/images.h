// The device code as bytes of this library: fatbins, machine code or PTX that ends in 0, in the order in
// which to try them. The builder (edgekit/hosts/tensorrt.py) writes the source that defines them.
#pragma once

namespace ek {
namespace hosts {

extern const void* const kImages[];
extern const int kImageCount;

}  // namespace hosts
}  // namespace ek
