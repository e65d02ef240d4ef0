#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "residua/io/safetensors/header.hpp"
#include "residua/io/safetensors/view.hpp"

namespace residua::io::detail {

/// Throws FormatError where `name` is missing or of another shape.
inline const TensorInfo& expect_shape(const TensorTable& file, const std::string& name,
                                      const std::vector<Index>& shape) {
    const TensorInfo& tensor = file.info(name);
    if (tensor.shape != shape)
        malformed(file.source(), "tensor ", in_quotes(name), " has shape ", text_of(tensor.shape),
                  ", expected ", text_of(shape));
    return tensor;
}

/// Throws FormatError where `name` is missing, of another rank or empty.
inline const std::vector<Index>& matrix_shape(const TensorTable& file, const std::string& name) {
    const TensorInfo& tensor = file.info(name);
    if (tensor.shape.size() != 2 || tensor.bytes.empty())
        malformed(file.source(), "tensor ", in_quotes(name), " has shape ", text_of(tensor.shape),
                  ", expected a matrix");
    return tensor.shape;
}

}  // namespace residua::io::detail
