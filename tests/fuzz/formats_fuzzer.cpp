// libFuzzer target: no bytes at all may do worse to the readers of GGUF, of settings in JSON, of packed layers
// and of token files than one of the library's exceptions. The first byte says which one reads the rest.
// cmake/reliability.sh builds and runs it.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <llama/config.hpp>
#include <llama/tokens.hpp>
#include <residua/io.hpp>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using namespace residua;

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

  private:
    std::string_view bytes_;
};

/// A file with these bytes, in memory.
class File {
  public:
    explicit File(std::string_view bytes, const char* name) : number_(::memfd_create(name, 0)) {
        if (::write(number_, bytes.data(), bytes.size()) != ssize_t(bytes.size())) std::abort();
    }
    ~File() { ::close(number_); }
    std::string path() const { return "/proc/self/fd/" + std::to_string(number_); }

  private:
    int number_;
};

template <class Call>
void expect_defined(Call call) {
    try {
        call();
    } catch (const io::FormatError&) {
    } catch (const io::FileError&) {
    } catch (const std::invalid_argument&) {
    }
}

void read_gguf(std::string_view bytes) {
    const File stored(bytes, "gguf");
    expect_defined([&] {
        const io::GGUFFile file(stored.path());
        for (const auto& tensor : file.tensors()) {
            expect_defined([&] { (void)file.layer<Q4_0Grid>(tensor.name).dequantize(); });
            expect_defined([&] { (void)file.layer<Q5_1Grid>(tensor.name).dequantize(); });
            expect_defined([&] { (void)file.layer<Q8_0Grid>(tensor.name).dequantize(); });
            expect_defined([&] { (void)file.layer<MXFP4Grid>(tensor.name).dequantize(); });
        }
    });
}

void read_settings(std::string_view bytes) {
    const File stored(bytes, "json");
    expect_defined([&] {
        const nlohmann::json json = io::read_json(stored.path());
        expect_defined([&] { (void)io::GPTQConfig::from_json(json); });
        try {
            expect_defined([&] { (void)llama::Config::from_json(json); });
        } catch (const nlohmann::json::exception&) {  // Config::read names the file
        }
    });
}

void unpack(std::string_view bytes) {
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

void read_tokens(std::string_view bytes) {
    Input in(bytes);
    const Index length = in.extent();
    const Index vocabulary = in.number<std::uint8_t>() % 2 == 0 ? 256 : 1000;
    const File stored(bytes.substr(std::min<std::size_t>(bytes.size(), 12)), "tokens");
    expect_defined([&] { (void)llama::read_windows(stored.path(), vocabulary, length, 0); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 4) {
        case 0:
            read_gguf(rest);
            break;
        case 1:
            read_settings(rest);
            break;
        case 2:
            unpack(rest);
            break;
        default:
            read_tokens(rest);
    }
    return 0;
}
