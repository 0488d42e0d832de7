# The library as a CMake package and for pkg-config, and asap-infer. What is installed may be moved as a whole.
include(CMakePackageConfigHelpers)
set(asap_package ${CMAKE_INSTALL_LIBDIR}/cmake/asap_runtime)

install(TARGETS asap_runtime EXPORT asap_runtime)
install(EXPORT asap_runtime NAMESPACE asap:: FILE asap_runtime-targets.cmake DESTINATION ${asap_package})
install(DIRECTORY include/asap "${CMAKE_CURRENT_BINARY_DIR}/include/asap" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")

# ONNX Runtime comes along, under the name that programs ask for, unless a system's package is to be found.
option(ASAP_INSTALL_ONNXRUNTIME "install ONNX Runtime's library beside asap_runtime" ON)
if(ASAP_INSTALL_ONNXRUNTIME)
    file(REAL_PATH "${OnnxRuntime_LIBRARY}" asap_onnxruntime)
    install(FILES "${asap_onnxruntime}" DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME libonnxruntime.so.1
            PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
    get_filename_component(folder "${asap_onnxruntime}" DIRECTORY)
    file(GLOB asap_providers "${folder}/libonnxruntime_providers_*.so")  # which it looks for beside itself
    install(FILES ${asap_providers} DESTINATION ${CMAKE_INSTALL_LIBDIR})
    file(CREATE_LINK libonnxruntime.so.1 "${CMAKE_CURRENT_BINARY_DIR}/libonnxruntime.so" SYMBOLIC)
    install(FILES "${CMAKE_CURRENT_BINARY_DIR}/libonnxruntime.so" DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()

# So do OpenVINO's library, its plugin for CPUs, its reader of ONNX and what they link, where it was found.
option(ASAP_INSTALL_OPENVINO "install OpenVINO's libraries beside asap_runtime" ON)
if(TARGET asap_openvino)
    install(TARGETS asap_openvino DESTINATION ${CMAKE_INSTALL_LIBDIR})
    set_target_properties(asap_openvino PROPERTIES INSTALL_RPATH "$ORIGIN")
    if(ASAP_INSTALL_OPENVINO)
        get_target_property(library openvino::runtime LOCATION)
        get_filename_component(folder "${library}" DIRECTORY)
        file(GLOB asap_openvino_libraries "${folder}/libopenvino.so.*" "${folder}/libopenvino_onnx_frontend.so.*"
             "${folder}/libopenvino_intel_cpu_plugin.so" "${folder}/libtbb*.so.*" "${folder}/libhwloc.so.*")
        install(FILES ${asap_openvino_libraries} DESTINATION ${CMAKE_INSTALL_LIBDIR})
    else()
        set_target_properties(asap_openvino PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
    endif()
endif()

# Libraries are found beside programs, and those that do not come along where they were linked.
set(asap_elsewhere OFF)
if(TensorRT_FOUND OR NOT ASAP_INSTALL_ONNXRUNTIME)
    set(asap_elsewhere ON)
endif()
set_target_properties(asap_runtime PROPERTIES INSTALL_RPATH "$ORIGIN" INSTALL_RPATH_USE_LINK_PATH ${asap_elsewhere})
if(TARGET asap-infer)
    install(TARGETS asap-infer)
    set_target_properties(asap-infer PROPERTIES INSTALL_RPATH_USE_LINK_PATH ${asap_elsewhere}
                                                INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endif()

# The package looks for what a static library needs and does not bring where it was found here.
get_target_property(asap_type asap_runtime TYPE)
set(asap_found_in "")
set(asap_places TensorRT_INCLUDE_DIR TensorRT_LIBRARY TensorRT_CUDA_INCLUDE_DIR TensorRT_CUDART_LIBRARY)
if(NOT ASAP_INSTALL_ONNXRUNTIME)
    list(APPEND asap_places OnnxRuntime_INCLUDE_DIR OnnxRuntime_LIBRARY)
endif()
foreach(place ${asap_places})
    set(folder "${${place}}")
    if(place MATCHES LIBRARY)
        get_filename_component(folder "${folder}" DIRECTORY)
    endif()
    if(IS_DIRECTORY "${folder}")
        list(APPEND asap_found_in "${folder}")
    endif()
endforeach()
list(REMOVE_DUPLICATES asap_found_in)
configure_package_config_file(cmake/asap_runtime-config.cmake.in asap_runtime-config.cmake
                              INSTALL_DESTINATION ${asap_package} PATH_VARS CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(asap_runtime-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/asap_runtime-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/asap_runtime-config-version.cmake"
              cmake/FindOnnxRuntime.cmake cmake/FindTensorRT.cmake DESTINATION ${asap_package})

# For pkg-config: a static library cannot be linked without what it needs, a shared one knows it.
file(RELATIVE_PATH asap_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" asap_to_prefix "${asap_to_prefix}")
set(asap_requires "")
set(asap_libraries "")
if(asap_type STREQUAL STATIC_LIBRARY)
    set(asap_requires "libutf8proc libwebp libwebpdemux libpng libjpeg libcrypto zlib")
    set(asap_libraries "-lonnxruntime -lstdc++ -ldl -pthread")
    if(NOT ASAP_INSTALL_ONNXRUNTIME)
        get_filename_component(folder "${OnnxRuntime_LIBRARY}" DIRECTORY)
        set(asap_libraries "-L${folder} ${asap_libraries}")
    endif()
    if(TensorRT_FOUND)
        string(APPEND asap_libraries " ${TensorRT_LIBRARY} ${TensorRT_CUDART_LIBRARY}")
    endif()
endif()
configure_file(cmake/asap_runtime.pc.in asap_runtime.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/asap_runtime.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
