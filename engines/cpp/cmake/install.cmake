# The library as a CMake package, and asap-infer.
include(CMakePackageConfigHelpers)
set(asap_package ${CMAKE_INSTALL_LIBDIR}/cmake/asap_runtime)

install(TARGETS asap_runtime EXPORT asap_runtime)
install(EXPORT asap_runtime NAMESPACE asap:: FILE asap_runtime-targets.cmake DESTINATION ${asap_package})
install(DIRECTORY include/asap "${CMAKE_CURRENT_BINARY_DIR}/include/asap" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")
# Libraries are found beside programs, and others where they were linked.
set_target_properties(asap_runtime PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
if(TARGET asap-infer)
    install(TARGETS asap-infer)
    set_target_properties(asap-infer PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON
                                                INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endif()

# The package looks for what a static library needs where it was found here.
get_target_property(asap_type asap_runtime TYPE)
set(asap_found_in "")
foreach(place OnnxRuntime_INCLUDE_DIR OnnxRuntime_LIBRARY TensorRT_INCLUDE_DIR TensorRT_LIBRARY
        TensorRT_CUDA_INCLUDE_DIR TensorRT_CUDART_LIBRARY)
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
                              INSTALL_DESTINATION ${asap_package})
write_basic_package_version_file(asap_runtime-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/asap_runtime-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/asap_runtime-config-version.cmake"
              cmake/FindOnnxRuntime.cmake cmake/FindTensorRT.cmake DESTINATION ${asap_package})
