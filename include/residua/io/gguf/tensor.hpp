#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "residua/core/types.hpp"

/// The numbers of the GGUF format, which its reader and its writer share.
namespace residua::io {

/// What the elements of a tensor in a GGUF file are, by the format's numbers; a file may hold others, too.
enum class GGMLType : std::uint32_t {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
    MXFP4 = 39,
};

/// A tensor of a GGUF file, non-owning.
struct GGUFTensor {
    std::string name;
    GGMLType type = GGMLType::F32;
    std::vector<Index> shape;          ///< row-major: (rows, ..., columns)
    std::span<const std::byte> bytes;  ///< of a file's tensor: empty where its type is none of GGMLType's
};

/// A matrix in ggml's blocks, row by row, of a type that is not known when the program is compiled.
struct GGMLMatrix {
    GGMLType type = GGMLType::F32;
    Index rows = 0;
    Index cols = 0;
    std::vector<std::byte> bytes = {};
};

namespace detail {

struct GGMLTypeFacts {
    GGMLType type;
    const char* name;
    Index elements;  // of a block
    Index bytes;     // of a block
};

inline constexpr std::array ggml_types = {
    GGMLTypeFacts{GGMLType::F32, "F32", 1, 4},         GGMLTypeFacts{GGMLType::F16, "F16", 1, 2},
    GGMLTypeFacts{GGMLType::Q4_0, "Q4_0", 32, 18},     GGMLTypeFacts{GGMLType::Q4_1, "Q4_1", 32, 20},
    GGMLTypeFacts{GGMLType::Q5_0, "Q5_0", 32, 22},     GGMLTypeFacts{GGMLType::Q5_1, "Q5_1", 32, 24},
    GGMLTypeFacts{GGMLType::Q8_0, "Q8_0", 32, 34},     GGMLTypeFacts{GGMLType::BF16, "BF16", 1, 2},
    GGMLTypeFacts{GGMLType::MXFP4, "MXFP4", 32, 17},   GGMLTypeFacts{GGMLType::Q2_K, "Q2_K", 256, 84},
    GGMLTypeFacts{GGMLType::Q3_K, "Q3_K", 256, 110},   GGMLTypeFacts{GGMLType::Q4_K, "Q4_K", 256, 144},
    GGMLTypeFacts{GGMLType::Q5_K, "Q5_K", 256, 176},   GGMLTypeFacts{GGMLType::Q6_K, "Q6_K", 256, 210},
    GGMLTypeFacts{GGMLType::IQ4_NL, "IQ4_NL", 32, 18}, GGMLTypeFacts{GGMLType::IQ4_XS, "IQ4_XS", 256, 136},
};

/// Null for a type that is not in the table.
constexpr const GGMLTypeFacts* facts_of(GGMLType type) {
    for (const GGMLTypeFacts& facts : ggml_types) {
        if (facts.type == type) return &facts;
    }
    return nullptr;
}

/// Bytes of a tensor whose rows are whole blocks.
[[nodiscard]] inline Index byte_count(const GGMLTypeFacts& facts, std::span<const Index> shape) {
    Index elements = 1;
    for (const Index extent : shape) elements *= extent;
    return elements / facts.elements * facts.bytes;
}

/// What a metadata value is, by the format's numbers.
enum class GGUFValueType : std::uint32_t {
    UInt8,
    Int8,
    UInt16,
    Int16,
    UInt32,
    Int32,
    Float32,
    Bool,
    String,
    Array,
    UInt64,
    Int64,
    Float64,
};

/// Bytes of a value, by its type; 0 for those that say their size themselves.
inline constexpr std::array<std::uint64_t, 13> gguf_value_sizes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

inline constexpr char gguf_magic[] = {'G', 'G', 'U', 'F'};
inline constexpr std::size_t gguf_alignment = 32;  // of tensors, unless general.alignment says otherwise
inline constexpr std::size_t gguf_max_rank = 4;

}  // namespace detail

/// "Q4_0"; the number where the type is none of GGMLType's.
[[nodiscard]] inline std::string name_of(GGMLType type) {
    const detail::GGMLTypeFacts* facts = detail::facts_of(type);
    return facts ? facts->name : std::to_string(static_cast<std::uint32_t>(type));
}

}  // namespace residua::io
