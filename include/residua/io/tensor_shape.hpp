#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "residua/io/tensor_table.hpp"

namespace residua::io::detail {

/// "[3, 4]"
[[nodiscard]] inline std::string text_of(std::span<const Index> shape, std::string_view separator = ", ") {
    std::string text;
    for (const Index extent : shape) {
        if (!text.empty()) text += separator;
        text += std::to_string(extent);
    }
    return "[" + text + "]";
}

/// The tensor `name`, whose bytes are the file's. Throws FormatError where it is missing or of another shape.
inline TensorInfo expect_shape(const TensorTable& file, const std::string& name,
                               const std::vector<Index>& shape) {
    TensorInfo tensor = file.info(name);
    if (tensor.shape != shape)
        malformed(file.source(), "tensor ", in_quotes(name), " has shape ", text_of(tensor.shape),
                  ", expected ", text_of(shape));
    return tensor;
}

/// (rows, cols) of the tensor `name`. Throws FormatError where it is missing, of another rank or empty.
[[nodiscard]] inline std::vector<Index> matrix_shape(const TensorTable& file, const std::string& name) {
    const TensorInfo& tensor = file.info(name);
    if (tensor.shape.size() != 2 || tensor.bytes.empty())
        malformed(file.source(), "tensor ", in_quotes(name), " has shape ", text_of(tensor.shape),
                  ", expected a matrix with elements");
    return tensor.shape;
}

}  // namespace residua::io::detail
