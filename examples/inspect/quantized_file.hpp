#pragma once

#include <functional>
#include <residua/io.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "../support/stored_layer.hpp"

/// A tensor as the file lists it.
struct ListedTensor {
    std::string name, type, shape;
};

inline std::string text_of(const std::vector<residua::Index>& shape) {
    std::string text;
    for (const auto extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
    return text.empty() ? "scalar" : text;
}

/// GGUF: a matrix of blocks is a layer.
class QuantizedGGUF {
  public:
    explicit QuantizedGGUF(const std::string& path) : file_(path) {}

    std::vector<ListedTensor> tensors() const {
        std::vector<ListedTensor> all;
        for (const auto& tensor : file_.tensors())
            all.push_back({tensor.name, name_of(tensor.type), text_of(tensor.shape)});
        return all;
    }

    std::vector<std::string> layers() const {
        std::vector<std::string> names;
        for (const auto& tensor : file_.tensors()) {
            if (tensor.shape.size() == 2 && visit_type(tensor.type, [](auto, const char*) {}))
                names.push_back(tensor.name);
        }
        return names;
    }

    /// f(format, QuantizedLayer<G>)
    template <class F>
    void visit(const std::string& name, F f) const {
        const bool known = visit_type(file_.tensor(name).type, [&]<class G>(G, const char* format) {
            f(format, file_.layer<G>(name));
        });
        residua::require(known, "'" + name + "' has type", name_of(file_.tensor(name).type),
                         "a type of blocks");
    }

  private:
    template <class G, class F>
    static bool try_two_level(residua::io::GGMLType type, F& f) {
        for (const G& grid : residua::io::detail::grids_like(G{})) {
            if (residua::io::ggml_type_of(grid) != type) continue;
            f(grid, name_of(type).c_str());
            return true;
        }
        return false;
    }
    template <class G, class F>
    static bool try_grid(residua::io::GGMLType type, F& f) {
        if (type != residua::io::GGMLFormat<G>::type) return false;
        f(G{}, residua::io::GGMLFormat<G>::name);
        return true;
    }
    template <class F>
    static bool visit_type(residua::io::GGMLType type, F f) {
        using namespace residua;
        return try_grid<Q4_0Grid>(type, f) || try_grid<Q4_1Grid>(type, f) || try_grid<Q5_0Grid>(type, f) ||
               try_grid<Q5_1Grid>(type, f) || try_grid<Q8_0Grid>(type, f) || try_grid<MXFP4Grid>(type, f) ||
               try_two_level<KQuantGrid<16>>(type, f) || try_two_level<KQuantGrid<32>>(type, f) ||
               try_two_level<IQ4Grid>(type, f);
    }

    residua::io::GGUFFile file_;
};

/// A file, an index or a folder of safetensors: <layer>.qweight, <layer>.weight_packed or <layer>.weight.absmax makes a
/// layer; those of several experts in one tensor, of rank 3, are only listed.
class QuantizedCheckpoint {
  public:
    explicit QuantizedCheckpoint(const std::string& path)
        : file_(path), config_(residua::io::find_quantization_config(file_)) {}

    std::vector<ListedTensor> tensors() const {
        std::vector<ListedTensor> all;
        for (const auto& tensor : file_.tensors())
            all.push_back({tensor.name, std::string(name_of(tensor.dtype)), text_of(tensor.shape)});
        return all;
    }

    std::vector<std::string> layers() const {
        std::vector<std::string> names;
        for (const auto& tensor : file_.tensors()) {
            for (const std::string_view suffix : {".qweight", ".weight_packed", ".weight.absmax"}) {
                if (tensor.name.ends_with(suffix) && tensor.shape.size() <= 2)
                    names.push_back(tensor.name.substr(0, tensor.name.size() - suffix.size()));
            }
        }
        return names;
    }

    /// f(format, QuantizedLayer<G>)
    template <class F>
    void visit(const std::string& name, F f) const {
        residua::require(visit_stored_layer(file_, name, config_, f), "layer '" + name + "' is",
                         "not quantized", "one of a format of the library");
    }

  private:
    residua::io::SafetensorsCheckpoint file_;
    nlohmann::json config_;
};
