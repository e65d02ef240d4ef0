#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <string_view>

#include "residua/core/types.hpp"

namespace residua::io {

static_assert(std::endian::native == std::endian::little, "safetensors data are little endian");
static_assert(std::numeric_limits<float>::is_iec559 && std::numeric_limits<double>::is_iec559);

/// Element types of the safetensors format. All are little endian, dense, and a whole number of bytes wide.
enum class DType {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    C64
};

namespace detail {

struct DTypeFacts {
    DType dtype;
    std::string_view name;  // as in the file
    std::size_t size;       // bytes of an element
};

inline constexpr std::array dtype_facts = {
    DTypeFacts{DType::Bool, "BOOL", 1},      DTypeFacts{DType::U8, "U8", 1},
    DTypeFacts{DType::I8, "I8", 1},          DTypeFacts{DType::F8E4M3, "F8_E4M3", 1},
    DTypeFacts{DType::F8E5M2, "F8_E5M2", 1}, DTypeFacts{DType::F8E8M0, "F8_E8M0", 1},
    DTypeFacts{DType::U16, "U16", 2},        DTypeFacts{DType::I16, "I16", 2},
    DTypeFacts{DType::F16, "F16", 2},        DTypeFacts{DType::BF16, "BF16", 2},
    DTypeFacts{DType::U32, "U32", 4},        DTypeFacts{DType::I32, "I32", 4},
    DTypeFacts{DType::F32, "F32", 4},        DTypeFacts{DType::U64, "U64", 8},
    DTypeFacts{DType::I64, "I64", 8},        DTypeFacts{DType::F64, "F64", 8},
    DTypeFacts{DType::C64, "C64", 8},
};

constexpr bool in_enumerator_order() {
    for (std::size_t i = 0; i < dtype_facts.size(); ++i) {
        if (static_cast<std::size_t>(dtype_facts[i].dtype) != i) return false;
    }
    return true;
}
static_assert(in_enumerator_order());

template <class T, class... Us>
concept OneOf = (std::same_as<T, Us> || ...);

}  // namespace detail

/// The name that the format uses: "BF16", "F8_E4M3", ...
[[nodiscard]] constexpr std::string_view name_of(DType dtype) {
    return detail::dtype_facts[static_cast<std::size_t>(dtype)].name;
}

/// Bytes of an element.
[[nodiscard]] constexpr std::size_t size_of(DType dtype) {
    return detail::dtype_facts[static_cast<std::size_t>(dtype)].size;
}

/// The inverse of name_of(); empty where the name is unknown.
[[nodiscard]] constexpr std::optional<DType> dtype_named(std::string_view name) {
    for (const auto& facts : detail::dtype_facts) {
        if (facts.name == name) return facts.dtype;
    }
    return std::nullopt;
}

/// Integers that a file may hold. Not bool and not the character types.
template <class T>
concept StoredInteger = detail::OneOf<T, signed char, short, int, long, long long, unsigned char,
                                      unsigned short, unsigned, unsigned long, unsigned long long>;

/// C++ types that stand for exactly one dtype.
template <class T>
concept Stored = Element<T> || StoredInteger<T>;

/// The dtype whose elements are T's bytes.
template <Stored T>
[[nodiscard]] constexpr DType dtype_of() {
    if constexpr (std::same_as<T, float>)
        return DType::F32;
    else if constexpr (std::same_as<T, double>)
        return DType::F64;
    else if constexpr (std::same_as<T, float16>)
        return DType::F16;
    else if constexpr (std::same_as<T, bfloat16>)
        return DType::BF16;
    else if constexpr (sizeof(T) == 1)
        return std::signed_integral<T> ? DType::I8 : DType::U8;
    else if constexpr (sizeof(T) == 2)
        return std::signed_integral<T> ? DType::I16 : DType::U16;
    else if constexpr (sizeof(T) == 4)
        return std::signed_integral<T> ? DType::I32 : DType::U32;
    else
        return std::signed_integral<T> ? DType::I64 : DType::U64;
}

}  // namespace residua::io
