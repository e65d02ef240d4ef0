#pragma once

#include <residua/io/gguf/tensor.hpp>
#include <string>
#include <vector>

/// "gguf-q4_0" and so on: every type of GGUF files that solves have a grid for.
std::vector<std::string> ggml_format_names();

/// Whether solves have a grid for that type.
bool has_grid(residua::io::GGMLType type);

/// The type of such a name. Throws std::invalid_argument for another one.
residua::io::GGMLType ggml_type_named(const std::string& format);

/// The type that holds rows of `cols` weights in place of `type`, whose blocks may not divide them: as llama.cpp's
/// quantizer replaces it, F16 in the end.
residua::io::GGMLType ggml_type_for(residua::io::GGMLType type, residua::Index cols);

/// Says on stderr that rows of `cols` weights get `type` in place of `asked`.
void announce_replacement(residua::io::GGMLType asked, residua::io::GGMLType type, residua::Index cols);

/// Throws std::invalid_argument for another group size than the type's own or SolverOptions::grid_default.
void require_group_size_of(residua::io::GGMLType type, residua::Index requested);
