#pragma once

#include <llama.h>

#include <array>
#include <cctype>
#include <residua/core/error.hpp>
#include <string>
#include <string_view>
#include <utility>

/// llama.cpp's mixes of types, which its library knows by number alone, by the names of its quantizer.
inline constexpr std::array mixes = {
    std::pair{"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K},     std::pair{"Q2_K_S", LLAMA_FTYPE_MOSTLY_Q2_K_S},
    std::pair{"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S}, std::pair{"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M},
    std::pair{"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L}, std::pair{"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    std::pair{"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1},     std::pair{"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S},
    std::pair{"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M}, std::pair{"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0},
    std::pair{"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1},     std::pair{"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S},
    std::pair{"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M}, std::pair{"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
    std::pair{"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     std::pair{"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL},
    std::pair{"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS},
};

inline std::string lower_case(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

/// Throws std::invalid_argument for another name. Case does not matter.
inline llama_ftype mix_named(const std::string& name) {
    std::string known;
    for (const auto& [mix, ftype] : mixes) {
        if (lower_case(mix) == lower_case(name)) return ftype;
        known += (known.empty() ? "" : ", ") + std::string(mix);
    }
    residua::reject("--type is", name, "one of " + known);
}

/// Throws std::invalid_argument for what ggml has no type of. Case does not matter.
inline ggml_type type_named(const std::string& name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        const bool is_there = ggml_blck_size(type) > 0 && ggml_type_name(type);
        if (is_there && lower_case(ggml_type_name(type)) == lower_case(name)) return type;
    }
    residua::reject("--tensor-type: the type is", name, "one of ggml, for example Q6_K");
}
