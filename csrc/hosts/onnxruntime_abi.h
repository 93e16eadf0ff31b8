// The part of ONNX Runtime's C interface that custom operators need, stated by us: the interface only grows,
// at its end, so an entry keeps its number and a structure its beginning. tests/hosts/onnxruntime_abi.cpp
// compares this with the real header. With it the library builds for any machine and needs nothing of the
// vendor's.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;
}

namespace ek {
namespace ort {

// The first version that lends its threads to custom operators.
constexpr uint32_t kApiVersion = 17;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kElementFloat = 1, kElementFloat16 = 10 };

// An entry of the table of functions: where it stands, and what it is.
template <class Function, size_t kIndex>
struct Entry {
  static constexpr size_t index = kIndex;
  static Function* in(const void* table) {
    return reinterpret_cast<Function*>(static_cast<void* const*>(table)[kIndex]);
  }
};

using CreateStatus = Entry<OrtStatus*(int code, const char* message), 0>;
using GetErrorMessage = Entry<const char*(const OrtStatus*), 2>;
using CreateCustomOpDomain = Entry<OrtStatus*(const char* name, OrtCustomOpDomain** out), 26>;
using CustomOpDomain_Add = Entry<OrtStatus*(OrtCustomOpDomain*, const struct CustomOp*), 27>;
using AddCustomOpDomain = Entry<OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*), 28>;
using GetTensorMutableData = Entry<OrtStatus*(OrtValue*, void** out), 51>;
using CreateTensorTypeAndShapeInfo = Entry<OrtStatus*(OrtTensorTypeAndShapeInfo** out), 57>;
using SetTensorElementType = Entry<OrtStatus*(OrtTensorTypeAndShapeInfo*, int type), 58>;
using SetDimensions = Entry<OrtStatus*(OrtTensorTypeAndShapeInfo*, const int64_t* lengths, size_t rank), 59>;
using GetTensorElementType = Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, int* out), 60>;
using GetDimensionsCount = Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t* out), 61>;
using GetDimensions = Entry<OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t* out, size_t rank), 62>;
using GetTensorTypeAndShape = Entry<OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo** out), 65>;
using KernelInfoGetAttribute_float =
    Entry<OrtStatus*(const OrtKernelInfo*, const char* name, float* out), 85>;
using KernelInfoGetAttribute_int64 =
    Entry<OrtStatus*(const OrtKernelInfo*, const char* name, int64_t* out), 86>;
using KernelInfoGetAttribute_string =
    Entry<OrtStatus*(const OrtKernelInfo*, const char* name, char* out, size_t* size), 87>;
using KernelContext_GetInput =
    Entry<OrtStatus*(const OrtKernelContext*, size_t index, const OrtValue** out), 90>;
using KernelContext_GetOutput =
    Entry<OrtStatus*(OrtKernelContext*, size_t index, const int64_t* lengths, size_t rank, OrtValue** out),
          91>;
using ReleaseStatus = Entry<void(OrtStatus*), 93>;
using ReleaseTensorTypeAndShapeInfo = Entry<void(OrtTensorTypeAndShapeInfo*), 99>;
using ShapeInferContext_GetInputTypeShape =
    Entry<OrtStatus*(const OrtShapeInferContext*, size_t index, OrtTensorTypeAndShapeInfo** out), 268>;
using ShapeInferContext_SetOutputTypeShape =
    Entry<OrtStatus*(const OrtShapeInferContext*, size_t index, const OrtTensorTypeAndShapeInfo*), 270>;
using SetSymbolicDimensions =
    Entry<OrtStatus*(OrtTensorTypeAndShapeInfo*, const char** names, size_t rank), 271>;
using KernelContext_ParallelFor = Entry<OrtStatus*(const OrtKernelContext*, void (*fn)(void*, size_t),
                                                   size_t total, size_t batches, void* data),
                                        274>;

struct ApiBase {
  const void* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

// What the runtime calls of an operator, as of version 17. An entry that stays null is not called.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const void* api, const OrtKernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_provider)(const CustomOp*);
  int (*get_input_type)(const CustomOp*, size_t index);
  size_t (*get_input_count)(const CustomOp*);
  int (*get_output_type)(const CustomOp*, size_t index);
  size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void* kernel, OrtKernelContext*);
  void (*destroy)(void* kernel);
  int (*get_input_characteristic)(const CustomOp*, size_t index);
  int (*get_output_characteristic)(const CustomOp*, size_t index);
  int (*get_input_memory_type)(const CustomOp*, size_t index);
  int (*get_variadic_input_min_arity)(const CustomOp*);
  int (*get_variadic_input_homogeneity)(const CustomOp*);
  int (*get_variadic_output_min_arity)(const CustomOp*);
  int (*get_variadic_output_homogeneity)(const CustomOp*);
  OrtStatus* (*create_kernel_v2)(const CustomOp*, const void* api, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*compute_v2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*infer_output_shape)(const CustomOp*, OrtShapeInferContext*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
  size_t (*get_may_inplace)(int** inputs, int** outputs);
  void (*release_may_inplace)(int* inputs, int* outputs);
  size_t (*get_alias_map)(int** inputs, int** outputs);
  void (*release_alias_map)(int* inputs, int* outputs);
};

}  // namespace ort
}  // namespace ek
