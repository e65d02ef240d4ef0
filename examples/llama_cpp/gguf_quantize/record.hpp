#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

/// What became of one matrix, for the report and for runs that go on with it.
struct Record {
    std::string tensor;
    std::ptrdiff_t matrix = 0;
    std::string type;
    std::string method;         ///< "gptq" and so on, or "ggml": rounded by llama.cpp's own quantizer
    std::ptrdiff_t tokens = 0;  ///< that it read
    double objective = NAN;     ///< what the method minimizes,
    double rounding = NAN;      ///< and the same of rounding to nearest; NaN where they are not known
    double seconds = 0;         ///< of the solve
    std::string degradation = {};

    nlohmann::json json() const {
        const auto number = [](double x) { return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(); };
        return {{"tensor", tensor},
                {"matrix", matrix},
                {"type", type},
                {"method", method},
                {"tokens", tokens},
                {"objective", number(objective)},
                {"rounding", number(rounding)},
                {"seconds", seconds},
                {"degradation", degradation}};
    }
    static Record of(const nlohmann::json& j) {
        const auto number = [&](const char* key) {
            return j.at(key).is_number() ? j.at(key).get<double>() : NAN;
        };
        return {.tensor = j.at("tensor"),
                .matrix = j.at("matrix"),
                .type = j.at("type"),
                .method = j.at("method"),
                .tokens = j.at("tokens"),
                .objective = number("objective"),
                .rounding = number("rounding"),
                .seconds = j.at("seconds"),
                .degradation = j.at("degradation")};
    }
};
