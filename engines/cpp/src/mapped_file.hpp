/// A file's bytes without a copy of them.
#pragma once

#include <cstddef>
#include <filesystem>

namespace asap::detail {

/// Read-only, and mapped as long as this lives. Throws `Error` where the file cannot be read.
class MappedFile {
public:
    explicit MappedFile(std::filesystem::path const& file);
    ~MappedFile();
    MappedFile(MappedFile const&) = delete;
    MappedFile& operator=(MappedFile const&) = delete;

    void const* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace asap::detail
