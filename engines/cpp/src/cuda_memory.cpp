#include "cuda_memory.hpp"

#include <algorithm>
#include <string>

#include <asap/error.hpp>

namespace asap::detail {

void check_cuda(cudaError_t status, char const* doing) {
    if (status == cudaSuccess) return;
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();  // it would be the answer to the next call too
        throw Error(std::string("expected device memory for ") + doing +
                    ", found too little; shorten the request, or export with smaller limits");
    }
    throw Error(std::string("expected CUDA to do ") + doing + ", found: " + cudaGetErrorString(status));
}

DeviceScope::DeviceScope(int device) {
    check_cuda(cudaGetDevice(&before_), "the choice of a device");
    check_cuda(cudaSetDevice(device), "the choice of a device");
}

DeviceScope::~DeviceScope() { cudaSetDevice(before_); }

CudaStream::CudaStream(void* given) : stream_(static_cast<cudaStream_t>(given)), own_(given == nullptr) {
    check_cuda(cudaGetDevice(&device_), "the choice of a device");
    if (own_) check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a new stream");
}

CudaStream::~CudaStream() {
    if (own_) cudaStreamDestroy(stream_);
}

void CudaStream::wait() const { check_cuda(cudaStreamSynchronize(stream_), "a run"); }

DeviceTensor::DeviceTensor(std::shared_ptr<CudaStream const> stream, Dtype dtype, Shape shape)
    : stream_(std::move(stream)), dtype_(dtype), shape_(std::move(shape)) {
    DeviceScope const device(stream_->device());
    check_cuda(cudaMallocAsync(&address_, std::max<std::size_t>(bytes(), 256), stream_->get()), "a tensor");
}

DeviceTensor::~DeviceTensor() { cudaFreeAsync(address_, stream_->get()); }

std::shared_ptr<DeviceTensor const> on_device(std::shared_ptr<CudaStream const> stream, Tensor const& tensor) {
    auto copy = std::make_shared<DeviceTensor>(stream, tensor.dtype(), tensor.shape());
    if (copy->bytes())  // from pageable memory: CUDA has read it when the call returns
        check_cuda(
            cudaMemcpyAsync(copy->address(), tensor.host(), copy->bytes(), cudaMemcpyHostToDevice, stream->get()),
            "a copy to the device");
    return copy;
}

TensorPtr on_host(CudaStream const& stream, DeviceTensor const& tensor) {
    auto copy = std::make_shared<HostTensor>(tensor.dtype(), tensor.shape());
    if (tensor.bytes()) {
        check_cuda(
            cudaMemcpyAsync(copy->writable(), tensor.address(), tensor.bytes(), cudaMemcpyDeviceToHost, stream.get()),
            "a copy to the host");
        stream.wait();
    }
    return copy;
}

}  // namespace asap::detail
