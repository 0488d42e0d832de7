/// CUDA's stream and memory behind RAII. Only for files that are compiled with TensorRT.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "tensor.hpp"

namespace asap::detail {

/// Throws `Error` that says what was being done and what CUDA answered.
void check_cuda(cudaError_t status, char const* doing);

/// Makes a device current for a scope, and the caller's own again after it.
class DeviceScope {
public:
    explicit DeviceScope(int device);
    ~DeviceScope();
    DeviceScope(DeviceScope const&) = delete;
    DeviceScope& operator=(DeviceScope const&) = delete;

private:
    int before_ = 0;
};

/// A stream on one device: the caller's, or one that is made and destroyed here.
class CudaStream {
public:
    explicit CudaStream(void* given);
    ~CudaStream();
    CudaStream(CudaStream const&) = delete;
    CudaStream& operator=(CudaStream const&) = delete;

    cudaStream_t get() const { return stream_; }
    int device() const { return device_; }
    void wait() const;

private:
    int device_ = 0;
    cudaStream_t stream_ = nullptr;
    bool own_ = false;
};

/// A tensor in device memory, allocated and freed in the order of its stream, which it keeps alive.
class DeviceTensor final : public Tensor {
public:
    DeviceTensor(std::shared_ptr<CudaStream const> stream, Dtype dtype, Shape shape);
    ~DeviceTensor() override;
    DeviceTensor(DeviceTensor const&) = delete;
    DeviceTensor& operator=(DeviceTensor const&) = delete;

    Dtype dtype() const override { return dtype_; }
    Shape const& shape() const override { return shape_; }
    std::byte const* host() const override { return nullptr; }
    /// Never null: TensorRT wants an address for a tensor without elements too.
    void* address() const { return address_; }
    std::size_t bytes() const { return elements(shape_) * size_of(dtype_); }

private:
    std::shared_ptr<CudaStream const> stream_;
    Dtype dtype_;
    Shape shape_;
    void* address_ = nullptr;
};

/// A copy of a host tensor on the device; the host's memory may go when this returns.
std::shared_ptr<DeviceTensor const> on_device(std::shared_ptr<CudaStream const> stream, Tensor const& tensor);

/// A copy in host memory, complete when this returns.
TensorPtr on_host(CudaStream const& stream, DeviceTensor const& tensor);

}  // namespace asap::detail
