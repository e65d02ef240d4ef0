#pragma once

#include <ggml-cpp.h>

#include <filesystem>
#include <optional>
#include <residua/core/matrix.hpp>
#include <residua/io/error.hpp>
#include <residua/io/mapped_file.hpp>
#include <string>
#include <vector>

/// A GGUF file by ggml's own reader, which knows every type of tensors, with the places of their bytes.
class GGUFIndex {
  public:
    using Index = residua::Index;

    struct Tensor {
        std::string name;
        ggml_type type;
        Index cols, rows, matrices;
        std::size_t offset;  ///< in the file
        std::size_t size;

        std::size_t bytes_of_matrix() const { return size / static_cast<std::size_t>(matrices); }
    };

    /// Throws FileError where the file cannot be read, FormatError where it is no whole GGUF file.
    explicit GGUFIndex(const std::filesystem::path& path) : file_(path) {
        context_.reset(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
        if (!context_)
            residua::io::detail::malformed(path.string(), "llama.cpp does not read this as a GGUF file");
        const std::size_t data = gguf_get_data_offset(context_.get());
        for (Index i = 0; i < gguf_get_n_tensors(context_.get()); ++i) {
            const std::int64_t* ne = gguf_get_tensor_ne(context_.get(), i);
            tensors_.push_back({.name = gguf_get_tensor_name(context_.get(), i),
                                .type = gguf_get_tensor_type(context_.get(), i),
                                .cols = ne[0],
                                .rows = ne[1],
                                .matrices = ne[2] * ne[3],
                                .offset = data + gguf_get_tensor_offset(context_.get(), i),
                                .size = gguf_get_tensor_size(context_.get(), i)});
            const Tensor& t = tensors_.back();
            if (t.offset + t.size > file_.bytes().size())
                residua::io::detail::malformed(path.string(), "the file ends before the tensor '", t.name,
                                               "' does");
        }
    }

    const std::vector<Tensor>& tensors() const { return tensors_; }

    /// Null where there is none of that name.
    const Tensor* find(const std::string& name) const {
        for (const Tensor& t : tensors_)
            if (t.name == name) return &t;
        return nullptr;
    }

    /// A number of the metadata.
    std::optional<std::uint32_t> number(const char* key) const {
        const auto id = gguf_find_key(context_.get(), key);
        if (id < 0) return {};
        switch (gguf_get_kv_type(context_.get(), id)) {
            case GGUF_TYPE_UINT32:
                return gguf_get_val_u32(context_.get(), id);
            case GGUF_TYPE_UINT16:
                return gguf_get_val_u16(context_.get(), id);
            default:
                return {};
        }
    }

    std::span<const std::byte> bytes(const Tensor& t, Index matrix) const {
        const std::size_t size = t.bytes_of_matrix();
        return file_.bytes().subspan(t.offset + static_cast<std::size_t>(matrix) * size, size);
    }
    std::span<const std::byte> bytes() const { return file_.bytes(); }

    /// (rows, cols) of one matrix. Throws FormatError for a type that llama.cpp cannot read back.
    residua::Matrix<float> values(const Tensor& t, Index matrix) const {
        residua::Matrix<float> result(t.rows, t.cols);
        const auto source = bytes(t, matrix);
        if (t.type == GGML_TYPE_F32) {
            std::memcpy(result.data(), source.data(), source.size());
            return result;
        }
        const auto to_float = ggml_get_type_traits(t.type)->to_float;
        if (!to_float)
            residua::io::detail::malformed(t.name, "has the type ", ggml_type_name(t.type),
                                           ", which has no values");
        to_float(source.data(), result.data(), result.size());
        return result;
    }

  private:
    residua::io::MappedFile file_;
    gguf_context_ptr context_;
    std::vector<Tensor> tensors_;
};
