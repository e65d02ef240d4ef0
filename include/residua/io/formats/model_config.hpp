#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "residua/io/atomic_file.hpp"
#include "residua/io/json_tree.hpp"
#include "residua/io/mapped_file.hpp"
#include "residua/io/tensor_table.hpp"

namespace residua::io {

/// Writes `json`, indented; atomic and throwing like AtomicFile.
inline void write_json(const std::filesystem::path& path, const nlohmann::json& json) {
    const std::string text = json.dump(2) + "\n";
    AtomicFile file(path);
    file.append(std::as_bytes(std::span(text)));
    file.commit();
}

/// Throws FileError where the file cannot be read and FormatError where it is not a JSON object, or one that is
/// nested deeper than 64 levels.
[[nodiscard]] inline nlohmann::json read_json(const std::filesystem::path& path) {
    const MappedFile file(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    return detail::parse_json_object(text, path.string(), "the file");
}

/// Tells the runtimes how the model in `folder` is quantized: quantize_config.json (GPTQ runtimes) and, where
/// there is a config.json, its quantization_config. Atomic and throwing like write_json() and read_json().
inline void write_quantization_config(const std::filesystem::path& folder,
                                      const nlohmann::json& quantization) {
    if (quantization.value("quant_method", "") == "gptq")
        write_json(folder / "quantize_config.json", quantization);
    const std::filesystem::path config = folder / "config.json";
    if (!std::filesystem::exists(config)) return;
    nlohmann::json model = read_json(config);
    model["quantization_config"] = quantization;
    write_json(config, model);
}

/// Metadata for a file of quantized tensors: "format": "pt", which transformers asks for, and the settings,
/// so that one file says all.
[[nodiscard]] inline Metadata quantization_metadata(const nlohmann::json& quantization) {
    return {{"format", "pt"}, {"quantization_config", quantization.dump()}};
}

/// The settings that `file` carries, or else those in config.json or quantize_config.json beside it; null
/// where there are none. Throws FormatError where they are not a JSON object.
[[nodiscard]] inline nlohmann::json find_quantization_config(const TensorTable& file) {
    if (const auto at = file.metadata().find("quantization_config"); at != file.metadata().end())
        return detail::parse_json_object(at->second, file.source(), "the metadata entry quantization_config");
    const std::filesystem::path folder = std::filesystem::path(file.source()).parent_path();
    std::error_code ignored;
    if (std::filesystem::exists(folder / "config.json", ignored)) {
        const nlohmann::json model = read_json(folder / "config.json");
        if (model.contains("quantization_config")) return model["quantization_config"];
    }
    if (std::filesystem::exists(folder / "quantize_config.json", ignored))
        return read_json(folder / "quantize_config.json");
    return {};
}

}  // namespace residua::io
