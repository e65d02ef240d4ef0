#pragma once

#include <filesystem>
#include <utility>

#include "residua/io/mapped_file.hpp"
#include "residua/io/safetensors/view.hpp"

namespace residua::io {

/// A safetensors file, mapped into memory: opening costs its header, reading costs what is read.
///
///     const io::SafetensorsFile file("layer.safetensors");
///     const std::vector<float> weight = file.read<float>("weight");              // converts
///     const MatrixView<const bfloat16> x = file.matrix_view<bfloat16>("x");      // does not copy
///
/// Views live as long as the file object. Throws FileError where the file cannot be read and FormatError
/// where it is not a valid safetensors file.
class SafetensorsFile : public SafetensorsView {
  public:
    explicit SafetensorsFile(const std::filesystem::path& path) : SafetensorsFile(MappedFile(path), path) {}

  private:
    SafetensorsFile(MappedFile file, const std::filesystem::path& path)
        : SafetensorsView(parse(file.bytes(), path.string())), file_(std::move(file)) {}

    MappedFile file_;
};

}  // namespace residua::io
