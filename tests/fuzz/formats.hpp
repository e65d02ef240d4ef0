#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <inspect/quantized_file.hpp>
#include <llama/config.hpp>
#include <llama/tokens.hpp>
#include <residua/io.hpp>
#include <string_view>

/// What the fuzzer of file formats runs, here so that the ordinary tests replay its corpus, too.
namespace residua::fuzz {

/// Numbers and bytes of the input, one after the other; zeros at its end.
class Input {
  public:
    explicit Input(std::string_view bytes) : bytes_(bytes) {}

    template <class T>
    T number() {
        T value = 0;
        const std::size_t size = std::min(sizeof value, bytes_.size());
        std::memcpy(&value, bytes_.data(), size);
        bytes_.remove_prefix(size);
        return value;
    }
    template <class T>
    std::vector<T> numbers() {
        std::vector<T> values(number<std::uint8_t>());
        for (T& value : values) value = number<T>();
        return values;
    }
    /// Mostly small, at times beyond all sizes.
    Index extent() {
        const auto kind = number<std::uint8_t>();
        return kind < 250 ? Index(kind % 70) : static_cast<Index>(number<std::uint64_t>());
    }
    std::string_view rest() const { return bytes_; }

  private:
    std::string_view bytes_;
};

/// A folder in memory, gone at the end.
class ScratchFolder {
  public:
    ScratchFolder() {
        std::string name = (std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp");
        name += "/residua_fuzz_XXXXXX";
        if (!::mkdtemp(name.data())) std::abort();
        path_ = name;
    }
    ~ScratchFolder() { std::filesystem::remove_all(path_); }

    std::filesystem::path write(const char* name, std::string_view bytes) const {
        std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
        return path_ / name;
    }

  private:
    std::filesystem::path path_;
};

inline const ScratchFolder& scratch() {
    static const ScratchFolder folder;
    return folder;
}

template <class Call>
void expect_defined(Call call) {
    try {
        call();
    } catch (const io::FormatError&) {
    } catch (const io::FileError&) {
    } catch (const std::invalid_argument&) {
    }
}

/// All that the program `inspect` makes of a file.
template <class Quantized>
void inspect(const std::filesystem::path& path) {
    expect_defined([&] {
        const Quantized file(path.string());
        (void)file.tensors();
        for (const std::string& name : file.layers())
            expect_defined(
                [&] { file.visit(name, [](const char*, const auto& layer) { (void)layer.dequantize(); }); });
    });
}

inline void read_settings(std::string_view bytes) {
    const auto path = scratch().write("config.json", bytes);
    expect_defined([&] {
        const nlohmann::json json = io::read_json(path);
        expect_defined([&] { (void)io::GPTQConfig::from_json(json); });
        try {
            expect_defined([&] { (void)llama::Config::from_json(json); });
        } catch (const nlohmann::json::exception&) {  // Config::read names the file
        }
    });
}

/// A safetensors file with its config.json beside it: the number of bytes of the latter, then both.
inline void read_checkpoint(std::string_view bytes) {
    Input in(bytes);
    const std::size_t announced = in.number<std::uint16_t>();
    const std::size_t size = std::min(announced, in.rest().size());
    scratch().write("config.json", in.rest().substr(0, size));
    inspect<QuantizedCheckpoint>(scratch().write("model.safetensors", in.rest().substr(size)));
}

inline void read_moments(std::string_view bytes) {
    static EigenBackend cpu{Executor(1)};
    const auto path = scratch().write("moments.safetensors", bytes);
    expect_defined([&] { (void)io::read_moments<float>(cpu, path); });
}

inline void unpack(std::string_view bytes) {
    Input in(bytes);
    const auto kind = in.number<std::uint8_t>();
    expect_defined([&] {
        if (kind % 4 == 0) {
            const io::GPTQLayer layer{.bits = in.number<std::int8_t>(),
                                      .version = kind & 4 ? io::GPTQVersion::V1 : io::GPTQVersion::V2,
                                      .in_features = in.extent(),
                                      .out_features = in.extent(),
                                      .groups = in.extent(),
                                      .qweight = in.numbers<std::int32_t>(),
                                      .qzeros = in.numbers<std::int32_t>(),
                                      .scales = std::vector<float16>(in.number<std::uint8_t>()),
                                      .g_idx = in.numbers<std::int32_t>()};
            (void)io::unpack_gptq(layer).dequantize();
        } else if (kind % 4 == 1) {
            const io::PackQuantizedLayer layer{
                .grid = {.bits = in.number<std::int8_t>(),
                         .symmetry = kind & 4 ? Symmetry::None : Symmetry::FullRange},
                .rows = in.extent(),
                .cols = in.extent(),
                .groups = in.extent(),
                .weight_packed = in.numbers<std::int32_t>(),
                .weight_scale = std::vector<std::byte>(4u * in.number<std::uint8_t>()),
                .weight_zero_point = in.numbers<std::int32_t>()};
            (void)io::unpack_quantized(layer).dequantize();
        } else if (kind % 4 == 2) {
            const io::FP4Layer layer{.is_nvfp4 = (kind & 4) != 0,
                                     .rows = in.extent(),
                                     .cols = in.extent(),
                                     .weight_packed = in.numbers<std::uint8_t>(),
                                     .weight_scale = in.numbers<std::uint8_t>(),
                                     .weight_global_scale = in.numbers<float>()};
            if (layer.is_nvfp4)
                (void)io::unpack_nvfp4(layer).dequantize();
            else
                (void)io::unpack_mxfp4(layer).dequantize();
        } else {
            const io::NF4Layer layer{.rows = in.extent(),
                                     .cols = in.extent(),
                                     .group_size = in.extent(),
                                     .weight = in.numbers<std::uint8_t>(),
                                     .absmax = in.numbers<float>()};
            (void)io::unpack_nf4(layer).dequantize();
        }
    });
}

inline void read_tokens(std::string_view bytes) {
    Input in(bytes);
    const Index length = in.extent();
    const auto kind = in.number<std::uint8_t>();
    const auto path = scratch().write(kind & 2 ? "tokens.safetensors" : "tokens.txt", in.rest());
    expect_defined([&] { (void)llama::read_windows(path, kind & 1 ? 1000 : 256, length, 0); });
}

/// The first byte says what reads the rest.
inline int run_formats(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 6) {
        case 0:
            inspect<QuantizedGGUF>(scratch().write("model.gguf", rest));
            break;
        case 1:
            read_settings(rest);
            break;
        case 2:
            unpack(rest);
            break;
        case 3:
            read_tokens(rest);
            break;
        case 4:
            read_checkpoint(rest);
            break;
        default:
            read_moments(rest);
    }
    return 0;
}

}  // namespace residua::fuzz
