#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "residua/io/safetensors/index.hpp"
#include "residua/io/safetensors/view.hpp"

/// What the fuzzer runs, here so that the ordinary tests run it, too.
namespace residua::fuzz {

inline void expect(bool condition) {
    if (!condition) std::abort();
}

/// Every byte that a table gives out lies in the file, and every way to read a tensor ends well.
inline void use(const io::SafetensorsView& view, std::span<const std::byte> file) {
    std::size_t size_of_tensors = 0;
    for (const io::TensorInfo& tensor : view.tensors()) {
        size_of_tensors += tensor.bytes.size();
        expect(tensor.bytes.data() >= file.data());
        expect(tensor.bytes.data() + tensor.bytes.size() <= file.data() + file.size());
        expect(&view.info(tensor.name) == &tensor);
        try {
            const auto values = view.read<double>(tensor.name);
            expect(values.size() * io::size_of(tensor.dtype) == tensor.bytes.size());
        } catch (const io::FormatError&) {
        }
        try {
            view.visit_matrix(tensor.name, [](auto matrix) {
                double sum = 0;
                for (Index i = 0; matrix.cols > 0 && i < matrix.rows; ++i)
                    for (Index j = 0; j < matrix.cols; ++j) sum += static_cast<double>(matrix(i, j));
                return sum;
            });
        } catch (const io::FormatError&) {
        }
        try {
            (void)view.matrix_view<float>(tensor.name);
        } catch (const io::FormatError&) {
        }
    }
    expect(size_of_tensors <= file.size());
}

inline int run_safetensors(const std::uint8_t* data, std::size_t size) {
    const auto file = std::as_bytes(std::span(data, size));
    try {
        use(io::SafetensorsView::parse(file, "fuzz"), file);
    } catch (const io::FormatError&) {
    }
    try {
        const std::string_view text(reinterpret_cast<const char*>(data), size);
        for (const auto& [tensor, shard] : io::detail::parse_index(text, "fuzz"))
            expect(io::detail::is_plain_file_name(shard));
    } catch (const io::FormatError&) {
    }
    return 0;
}

}  // namespace residua::fuzz
