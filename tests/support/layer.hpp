#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "residua/grids/integer_grid.hpp"
#include "residua/solver/solver.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

/// A layer with calibration tokens, and solving it on a backend named by its tag (support/backends.hpp).
namespace residua::test {

/// Values are those of a float, so that every element type sees the same layer.
struct Layer {
    Index m = 0;
    Index n = 0;
    Index tokens = 0;
    reference::Matrix w;          ///< (m, n)
    reference::Matrix x;          ///< (tokens, n)
    reference::Matrix x_fp;       ///< (tokens, n)
    reference::Matrix h = {};     ///< (tokens, m) the residual stream
    reference::Matrix h_fp = {};  ///< (tokens, m)
};

struct LayerShape {
    Index out = 1;
    Index in = 1;
    Index tokens = 1;
    std::vector<Index> dead = {};  ///< input columns of x that are zero; x_fp is not
    std::uint64_t seed = 1;
};

inline double to_float(double value) { return double(static_cast<float>(value)); }

/// Inputs that are correlated and differ in magnitude, weights that are normal.
inline Layer random_layer(const LayerShape& shape) {
    Random random(shape.seed);
    const Index n = shape.in;
    const Index factors = 1 + n / 3;
    reference::Matrix mix(factors, n);
    for (double& v : mix.data) v = random.normal();
    std::vector<double> size;
    for (Index j = 0; j < n; ++j) size.push_back(std::exp(0.7 * random.normal()));

    Random of_stream(~shape.seed);  // whatever the stream is, the layer is the same
    Layer layer{shape.out,
                n,
                shape.tokens,
                {shape.out, n},
                {shape.tokens, n},
                {shape.tokens, n},
                {shape.tokens, shape.out},
                {shape.tokens, shape.out}};
    for (double& v : layer.w.data) v = to_float(0.1 * random.normal());
    for (Index t = 0; t < shape.tokens; ++t) {
        std::vector<double> hidden;
        for (Index k = 0; k < factors; ++k) hidden.push_back(random.normal());
        const double drift = random.normal();
        for (Index j = 0; j < n; ++j) {
            double value = 0.5 * random.normal();
            for (Index k = 0; k < factors; ++k)
                value += mix(k, j) * hidden[static_cast<std::size_t>(k)] / std::sqrt(double(factors));
            const double deviation = 0.1 * (drift * mix(0, j) + random.normal());
            layer.x(t, j) = to_float(size[static_cast<std::size_t>(j)] * value);
            layer.x_fp(t, j) = to_float(size[static_cast<std::size_t>(j)] * (value + deviation));
        }
        for (Index r = 0; r < shape.out; ++r) {
            const double value = of_stream.normal();
            const double deviation =
                0.2 * hidden[static_cast<std::size_t>(r % factors)] + 0.05 * of_stream.normal();
            layer.h(t, r) = to_float(value);
            layer.h_fp(t, r) = to_float(value + deviation);
        }
        for (const Index j : shape.dead) layer.x(t, j) = 0;
    }
    return layer;
}

/// A matrix of the tag's backend with these values.
template <class Tag, Element In = typename Tag::Scalar>
auto upload(const reference::Matrix& values) {
    auto& backend = Tag::get();
    std::vector<In> converted;
    for (const double v : values.data) {
        if constexpr (Real<In>) {
            converted.push_back(static_cast<In>(v));
        } else {
            converted.push_back(In(static_cast<float>(v)));
        }
    }
    auto matrix = backend.template allocate<In>(values.rows, values.cols);
    backend.write(converted, matrix.view());
    return matrix;
}

/// A host copy of a backend's matrix.
template <class Tag, class View>
reference::Matrix download(View view) {
    const auto values = Tag::get().read(view);
    reference::Matrix copy(view.rows, view.cols);
    for (std::size_t i = 0; i < values.size(); ++i) copy.data[i] = static_cast<double>(values[i]);
    return copy;
}

template <class Tag>
using MomentsOf = Moments<typename Tag::Scalar, typename Tag::Backend>;

template <class Method, class Tag>
using SolverOf = Solver<Method, typename Tag::Scalar, typename Tag::Backend>;

enum class Inputs { Quantized, WithReference, WithStream, StreamAlone };

template <class Tag>
MomentsOf<Tag> moments_of(const Layer& layer, Inputs inputs = Inputs::WithReference) {
    MomentsOf<Tag> moments(Tag::get(), layer.n);
    const auto x = upload<Tag>(layer.x);
    const auto x_fp = upload<Tag>(layer.x_fp);
    const auto h = upload<Tag>(layer.h);
    const auto h_fp = upload<Tag>(layer.h_fp);
    if (inputs == Inputs::Quantized) moments.accumulate(x.view());
    if (inputs == Inputs::WithReference) moments.accumulate(x.view(), x_fp.view());
    if (inputs == Inputs::WithStream)
        moments.accumulate(x.view(), x_fp.view(), ResidualStream{h.view(), h_fp.view()});
    if (inputs == Inputs::StreamAlone) moments.accumulate(x.view(), ResidualStream{h.view(), h_fp.view()});
    Tag::get().read(moments.gram());  // x may go now
    return moments;
}

/// With objectives in the report.
inline SolverOptions reporting(SolverOptions options = {}) {
    options.report_objective = true;
    return options;
}

/// A quantized layer, on the host.
struct Solved {
    Status status = Status::Success;
    Index groups = 0;
    std::vector<int> codes;
    std::vector<double> scales;
    std::vector<double> zeros;
    std::vector<std::int32_t> group_index;
    reference::Matrix dequantized;
    Report report;

    explicit operator bool() const { return status == Status::Success; }
};

template <class Tag, class Quantized>
Solved fetch(const Quantized& quantized) {
    Solved solved;
    solved.report = quantized.report;
    solved.status = quantized.report.status;
    if (!quantized) return solved;
    auto& backend = Tag::get();
    for (const auto code : backend.read(quantized.codes.view())) solved.codes.push_back(code);
    for (const auto scale : backend.read(quantized.scales.view())) solved.scales.push_back(double(scale));
    for (const auto zero : backend.read(quantized.zeros.view())) solved.zeros.push_back(double(zero));
    solved.groups = quantized.scales.cols();
    solved.group_index = quantized.group_index;
    const auto values = quantized.dequantize(backend);
    solved.dequantized = reference::Matrix(values.rows(), values.cols());
    for (Index i = 0; i < values.size(); ++i)
        solved.dequantized.data[static_cast<std::size_t>(i)] = double(values.data()[i]);
    return solved;
}

/// Any weights, with a solver that knows its moments.
template <class Tag, class AnySolver, class G>
Solved quantize(const AnySolver& solver, const reference::Matrix& weights, const G& grid) {
    const auto w = upload<Tag>(weights);
    return fetch<Tag>(solver.quantize(w.view(), grid));
}

template <class Method, class Tag, class G = IntegerGrid>
Solved solve(const Layer& layer, const SolverOptions& options = {}, const G& grid = {}, Method method = {},
             Inputs inputs = Inputs::WithReference) {
    const auto moments = moments_of<Tag>(layer, inputs);
    return quantize<Tag>(SolverOf<Method, Tag>(moments, options, method), layer.w, grid);
}

template <class Method, class Tag, class G = IntegerGrid>
std::vector<int> codes_of(const Layer& layer, const SolverOptions& options = {}, const G& grid = {},
                          Method method = {}, Inputs inputs = Inputs::WithReference) {
    return solve<Method, Tag>(layer, options, grid, method, inputs).codes;
}

/// Places where two lists differ; all of them if their lengths do.
template <class T>
std::size_t differences(const std::vector<T>& a, const std::vector<T>& b) {
    if (a.size() != b.size()) return std::max(a.size(), b.size());
    std::size_t count = 0;
    for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
    return count;
}

/// The naive twin of each method.
inline reference::Settings settings_of(const GPTQ&) { return {reference::Method::GPTQ, 0, 0}; }
inline reference::Settings settings_of(const GPTAQ& method) {
    return {reference::Method::GPTAQ, method.alpha, 0};
}
inline reference::Settings settings_of(const ResidualComp& method) {
    return {reference::Method::ResComp, method.alpha, method.beta};
}
inline reference::Settings settings_of(const GPTQResidualComp& method) {
    return {reference::Method::GPTQResComp, 0, method.beta};
}
inline reference::Settings settings_of(const QEP& method) {
    return {reference::Method::QEP, method.alpha, 0};
}
inline reference::Settings settings_of(const Qronos&) { return {reference::Method::Qronos, 1, 0}; }

/// what() of the exception of type Error that `call` ends in; "" where it ends well.
template <class Error = std::invalid_argument, class Call>
std::string message_of(Call&& call) {
    try {
        std::forward<Call>(call)();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace residua::test
