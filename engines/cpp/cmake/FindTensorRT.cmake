# TensorRT or TensorRT-RTX: NvInfer.h and one of their libraries, and CUDA's runtime, in TensorRT_ROOT, CUDAToolkit_ROOT
# or where the system has them. TensorRT_FLAVOUR is the one found: tensorrt or tensorrt_rtx.
find_path(TensorRT_INCLUDE_DIR NvInfer.h HINTS ${ASAP_FOUND_IN})
find_library(TensorRT_LIBRARY NAMES nvinfer tensorrt_rtx HINTS ${ASAP_FOUND_IN})
find_path(TensorRT_CUDA_INCLUDE_DIR cuda_runtime_api.h HINTS ${ASAP_FOUND_IN} ${CUDAToolkit_ROOT} /usr/local/cuda PATH_SUFFIXES include)
find_library(TensorRT_CUDART_LIBRARY cudart HINTS ${ASAP_FOUND_IN} ${CUDAToolkit_ROOT} /usr/local/cuda PATH_SUFFIXES lib64 lib)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT REQUIRED_VARS
    TensorRT_LIBRARY TensorRT_INCLUDE_DIR TensorRT_CUDART_LIBRARY TensorRT_CUDA_INCLUDE_DIR)
if(TensorRT_FOUND)
    set(TensorRT_FLAVOUR tensorrt)
    if(TensorRT_LIBRARY MATCHES tensorrt_rtx)
        set(TensorRT_FLAVOUR tensorrt_rtx)
    endif()
    if(NOT TARGET TensorRT::TensorRT)
        add_library(TensorRT::TensorRT SHARED IMPORTED)
        set_target_properties(TensorRT::TensorRT PROPERTIES IMPORTED_LOCATION "${TensorRT_LIBRARY}"
            INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR};${TensorRT_CUDA_INCLUDE_DIR}"
            INTERFACE_INCLUDE_DIRECTORIES "${TensorRT_INCLUDE_DIR};${TensorRT_CUDA_INCLUDE_DIR}"
            INTERFACE_COMPILE_DEFINITIONS ASAP_TENSORRT_FLAVOUR="${TensorRT_FLAVOUR}"
            INTERFACE_LINK_LIBRARIES "${TensorRT_CUDART_LIBRARY}")
    endif()
endif()
mark_as_advanced(TensorRT_INCLUDE_DIR TensorRT_LIBRARY TensorRT_CUDA_INCLUDE_DIR TensorRT_CUDART_LIBRARY)
