#pragma once

#include <residua/io.hpp>
#include <string>
#include <vector>

#include "float_format.hpp"

/// quantization_config of a checkpoint whose linear layers, but `ignore`, are all in that format.
nlohmann::json quantization_config(FloatFormat format, const std::vector<std::string>& ignore);

/// A tensor of a layer, with its elements.
struct StoredTensor {
    std::string suffix;  ///< behind the name of the layer
    residua::io::DType dtype;
    std::vector<residua::Index> shape;
    std::vector<std::byte> bytes;

    /// Valid as long as this object.
    residua::io::TensorInfo of(const std::string& layer) const {
        return {layer + suffix, dtype, shape, bytes};
    }
};

/// What a packed layer lends, kept.
template <class Packed>
std::vector<StoredTensor> stored_tensors(const Packed& packed) {
    std::vector<StoredTensor> kept;
    for (const residua::io::TensorInfo& tensor : packed.tensors(""))
        kept.push_back({tensor.name, tensor.dtype, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()}});
    return kept;
}
