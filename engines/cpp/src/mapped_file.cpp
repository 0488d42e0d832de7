#include "mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include <asap/error.hpp>

namespace asap::detail {

MappedFile::MappedFile(std::filesystem::path const& file) : size_(std::filesystem::file_size(file)) {
    int const descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0 && size_) data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    int const reason = errno;
    if (descriptor >= 0) close(descriptor);
    if (descriptor < 0 || data_ == MAP_FAILED)
        throw Error("expected a readable " + file.string() + ", found: " + std::strerror(reason));
}

MappedFile::~MappedFile() {
    if (data_) munmap(data_, size_);
}

}  // namespace asap::detail
