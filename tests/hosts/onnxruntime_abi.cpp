// Compared with the real header when it is compiled: where the functions stand, and what an operator looks
// like.
#include "hosts/onnxruntime_abi.h"

#include <onnxruntime_c_api.h>

#include <cstddef>

namespace {

using namespace ek::ort;

#define SAME_PLACE(name) \
  static_assert(name::index == offsetof(OrtApi, name) / sizeof(void*), #name " has moved")

SAME_PLACE(CreateStatus);
SAME_PLACE(GetErrorMessage);
SAME_PLACE(CreateCustomOpDomain);
SAME_PLACE(CustomOpDomain_Add);
SAME_PLACE(AddCustomOpDomain);
SAME_PLACE(GetTensorMutableData);
SAME_PLACE(CreateTensorTypeAndShapeInfo);
SAME_PLACE(SetTensorElementType);
SAME_PLACE(SetDimensions);
SAME_PLACE(GetTensorElementType);
SAME_PLACE(GetDimensionsCount);
SAME_PLACE(GetDimensions);
SAME_PLACE(GetTensorTypeAndShape);
SAME_PLACE(KernelInfoGetAttribute_float);
SAME_PLACE(KernelInfoGetAttribute_int64);
SAME_PLACE(KernelInfoGetAttribute_string);
SAME_PLACE(KernelContext_GetInput);
SAME_PLACE(KernelContext_GetOutput);
SAME_PLACE(ReleaseStatus);
SAME_PLACE(ReleaseTensorTypeAndShapeInfo);
SAME_PLACE(ShapeInferContext_GetInputTypeShape);
SAME_PLACE(ShapeInferContext_SetOutputTypeShape);
SAME_PLACE(SetSymbolicDimensions);
SAME_PLACE(KernelContext_ParallelFor);

#define SAME_FIELD(ours, theirs) \
  static_assert(offsetof(CustomOp, ours) == offsetof(OrtCustomOp, theirs), #theirs " has moved")

SAME_FIELD(version, version);
SAME_FIELD(create_kernel, CreateKernel);
SAME_FIELD(get_name, GetName);
SAME_FIELD(get_provider, GetExecutionProviderType);
SAME_FIELD(get_input_type, GetInputType);
SAME_FIELD(get_input_count, GetInputTypeCount);
SAME_FIELD(get_output_type, GetOutputType);
SAME_FIELD(get_output_count, GetOutputTypeCount);
SAME_FIELD(compute, KernelCompute);
SAME_FIELD(destroy, KernelDestroy);
SAME_FIELD(get_input_characteristic, GetInputCharacteristic);
SAME_FIELD(get_output_characteristic, GetOutputCharacteristic);
SAME_FIELD(get_input_memory_type, GetInputMemoryType);
SAME_FIELD(get_variadic_input_min_arity, GetVariadicInputMinArity);
SAME_FIELD(get_variadic_input_homogeneity, GetVariadicInputHomogeneity);
SAME_FIELD(get_variadic_output_min_arity, GetVariadicOutputMinArity);
SAME_FIELD(get_variadic_output_homogeneity, GetVariadicOutputHomogeneity);
SAME_FIELD(create_kernel_v2, CreateKernelV2);
SAME_FIELD(compute_v2, KernelComputeV2);
SAME_FIELD(infer_output_shape, InferOutputShapeFn);
SAME_FIELD(get_start_version, GetStartVersion);
SAME_FIELD(get_end_version, GetEndVersion);
SAME_FIELD(get_may_inplace, GetMayInplace);
SAME_FIELD(release_may_inplace, ReleaseMayInplace);
SAME_FIELD(get_alias_map, GetAliasMap);
SAME_FIELD(release_alias_map, ReleaseAliasMap);

static_assert(ORT_API_VERSION >= kApiVersion, "a header that is older than what we ask for");
static_assert(int{kFail} == int{ORT_FAIL} && int{kInvalidArgument} == int{ORT_INVALID_ARGUMENT},
              "error codes");
static_assert(int{kElementFloat} == int{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}, "float");
static_assert(int{kElementFloat16} == int{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16}, "float16");
static_assert(offsetof(ApiBase, get_api) == offsetof(OrtApiBase, GetApi), "GetApi");
static_assert(offsetof(ApiBase, get_version) == offsetof(OrtApiBase, GetVersionString), "GetVersionString");

}  // namespace
