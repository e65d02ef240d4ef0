#pragma once

#include <optional>
#include <residua/core/types.hpp>
#include <string>

/// Formats of layers in safetensors files whose codes stand for floating-point numbers.
enum class FloatFormat { NVFP4, MXFP4, NF4 };

/// The format that the programs call `name`: nvfp4, mxfp4 or nf4; absent for another name.
std::optional<FloatFormat> float_format_named(const std::string& name);

/// The group size of a solve: the format's own, where it has but one, or what is `requested`. Throws
/// std::invalid_argument for one that it cannot have.
residua::Index resolve_group_size(FloatFormat format, residua::Index requested);
