/// The Llama runner against logits of the original implementation, and against a naive one in double
/// precision.

#include <llama/perplexity.hpp>
#include <llama/rotation.hpp>
#include <random>

#include "catch.hpp"
#include "examples/random_llama.hpp"

using namespace llama;

namespace {

const std::string model_folder = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";

const Model& shipped_model() {
    static const Model model = read_model(model_folder);
    return model;
}

std::vector<Token> sample(Index count, Index first = 0) {
    const auto windows = read_windows(model_folder + "/eval.txt", 256, first + count, 1);
    return {windows[0].begin() + first, windows[0].end()};
}

Rows logits(const Model& model, std::span<const Token> tokens, const ActivationSettings& settings = {}) {
    return Runner(model.config, Index(tokens.size()), settings).logits(model, tokens);
}

float largest_difference(const Rows& a, const Rows& b) { return (a - b).cwiseAbs().maxCoeff(); }

/// The textbook, one token and one number at a time.
class NaiveLlama {
  public:
    explicit NaiveLlama(const Model& model) : model_(model), c_(model.config) {}

    std::vector<std::vector<double>> logits(std::span<const Token> tokens) const {
        std::vector<std::vector<double>> h;
        for (const Token token : tokens) {
            h.push_back(row(model_.embedding, token));
            for (double& value : h.back()) value *= double(c_.embedding_scale);
        }
        for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
            const Block& block = model_.blocks[i];
            const bool is_sliding = !c_.sliding.empty() && c_.sliding[i];
            const Rotary& rotary = is_sliding ? c_.sliding_rotary : c_.rotary;
            const std::size_t reach = is_sliding ? std::size_t(c_.sliding_window) : h.size();
            std::vector<std::vector<double>> q, k, v;
            for (std::size_t t = 0; t < h.size(); ++t) {
                const auto x = norm(h[t], block.attention_norm);
                q.push_back(turn(norm_heads(linear(block[Role::Query], x), block.query_norm), t, rotary));
                k.push_back(turn(norm_heads(linear(block[Role::Key], x), block.key_norm), t, rotary));
                v.push_back(linear(block[Role::Value], x));
            }
            for (std::size_t t = 0; t < h.size(); ++t) {
                const auto y = linear(block[Role::Output], attend(q[t], k, v, t, reach));
                add(h[t], c_.output_norms ? norm(y, block.attention_output_norm) : y);
                const auto x = norm(h[t], block.mlp_norm);
                const auto z =
                    block.router.weight.size() > 0 ? mixture(block, x) : mlp(block, every_token, x);
                add(h[t], c_.output_norms ? norm(z, block.mlp_output_norm) : z);
            }
        }
        std::vector<std::vector<double>> result;
        for (const auto& x : h) result.push_back(linear({.weight = model_.head}, norm(x, model_.norm)));
        return result;
    }

  private:
    using Values = std::vector<double>;

    static Values row(const Rows& m, Index i) { return {m.row(i).begin(), m.row(i).end()}; }
    static void add(Values& a, const Values& b) {
        for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    }
    static Values linear(const Linear& layer, const Values& x) {
        Values y(std::size_t(layer.weight.rows()), 0);
        for (Index i = 0; i < layer.weight.rows(); ++i) {
            for (Index j = 0; j < layer.weight.cols(); ++j)
                y[std::size_t(i)] += double(layer.weight(i, j)) * x[std::size_t(j)];
            if (layer.bias.size() > 0) y[std::size_t(i)] += double(layer.bias(i));
        }
        return y;
    }
    Values norm(Values x, const Vector& weight) const {
        double sum = 0;
        for (const double value : x) sum += value * value;
        const double scale = 1 / std::sqrt(sum / double(x.size()) + double(c_.norm_epsilon));
        for (std::size_t i = 0; i < x.size(); ++i) x[i] *= scale * double(weight(Index(i)));
        return x;
    }
    Values norm_heads(const Values& x, const Vector& weight) const {
        const auto size = std::ptrdiff_t(c_.head_size);
        Values normed;
        for (auto head = x.begin(); head != x.end(); head += size) {
            const Values part = norm(Values(head, head + size), weight);
            normed.insert(normed.end(), part.begin(), part.end());
        }
        return normed;
    }
    Values mlp(const Block& block, Index expert, const Values& x) const {
        auto gate = linear(block.at(Role::Gate, expert), x);
        const auto up = linear(block.at(Role::Up, expert), x);
        for (std::size_t i = 0; i < gate.size(); ++i) {
            const double g = gate[i];
            const double silu = g / (1 + std::exp(-g));
            const double gelu =
                g / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (g + 0.044715 * g * g * g)));
            gate[i] = (c_.activation == Activation::Silu ? silu : gelu) * up[i];
        }
        return linear(block.at(Role::Down, expert), gate);
    }
    Values mixture(const Block& block, const Values& x) const {
        Values score = linear(block.router, x);
        double all = 0;
        for (double& value : score) all += value = std::exp(value);
        Values sum(x.size(), 0);
        for (Index i = 0; i < c_.experts.per_token; ++i) {
            const auto best = std::max_element(score.begin(), score.end());
            const Values y = mlp(block, best - score.begin(), x);
            for (std::size_t j = 0; j < y.size(); ++j) sum[j] += *best / all * y[j];
            *best = 0;
        }
        return sum;
    }
    Values turn(Values x, std::size_t position, const Rotary& rotary) const {
        const auto size = std::size_t(c_.head_size);
        const RotaryScaling s = rotary.scaling.value_or(RotaryScaling{.original_positions = 1e9});
        for (std::size_t first = 0; first < x.size(); first += size) {
            for (std::size_t i = 0; i < size / 2; ++i) {
                double rate = std::pow(rotary.base, -2.0 * double(i) / double(size)) / rotary.divisor;
                const double wavelength = 2 * std::acos(-1.0) / rate;
                if (wavelength > s.original_positions / s.low_factor) {
                    rate /= s.factor;
                } else if (wavelength > s.original_positions / s.high_factor) {
                    const double smooth =
                        (s.original_positions / wavelength - s.low_factor) / (s.high_factor - s.low_factor);
                    rate = (1 - smooth) * rate / s.factor + smooth * rate;
                }
                const double angle = double(position) * rate;
                const double a = x[first + i], b = x[first + i + size / 2];
                x[first + i] = a * std::cos(angle) - b * std::sin(angle);
                x[first + i + size / 2] = b * std::cos(angle) + a * std::sin(angle);
            }
        }
        return x;
    }
    Values attend(const Values& q, const std::vector<Values>& k, const std::vector<Values>& v,
                  std::size_t position, std::size_t reach) const {
        const std::size_t first = position + 1 - std::min(reach, position + 1);
        const double scalar = c_.query_scalar > 0 ? c_.query_scalar : double(c_.head_size);
        const auto size = std::size_t(c_.head_size);
        Values context(q.size(), 0);
        for (std::size_t head = 0; head < std::size_t(c_.heads); ++head) {
            const std::size_t source = head * std::size_t(c_.key_value_heads) / std::size_t(c_.heads) * size;
            Values weight;
            double sum = 0;
            for (std::size_t t = first; t <= position; ++t) {
                double dot = 0;
                for (std::size_t i = 0; i < size; ++i) dot += q[head * size + i] * k[t][source + i];
                weight.push_back(std::exp(dot / std::sqrt(scalar)));
                sum += weight.back();
            }
            for (std::size_t t = first; t <= position; ++t) {
                for (std::size_t i = 0; i < size; ++i)
                    context[head * size + i] += weight[t - first] / sum * v[t][source + i];
            }
        }
        return context;
    }

    const Model& model_;
    const Config& c_;
};

/// Outlier channels as large language models have them, without a change of what the model computes.
Model with_outliers(Model model, float factor) {
    const Index columns[] = {3, 77, 140, 201};
    for (Block& block : model.blocks) {
        for (const Index j : columns) {
            block.attention_norm(j) *= factor;
            block.mlp_norm(j) *= factor;
            for (const Role role : {Role::Query, Role::Key, Role::Value, Role::Gate, Role::Up})
                block[role].weight.col(j) /= factor;
        }
    }
    return model;
}

/// Every linear layer of the blocks rounded to 4 bits, one asymmetric scale for each output.
Model rounded(Model model) {
    residua::EigenBackend backend;
    for (Block& block : model.blocks) {
        for (BlockLayer& layer : block.layers) {
            Rows& weight = layer.linear.weight;
            const auto values = residua::round_weights<float>(backend, view(std::as_const(weight)),
                                                              residua::IntegerGrid{.bits = 4},
                                                              residua::SolverOptions::per_channel)
                                    .dequantize(backend);
            weight = Eigen::Map<const Rows>(values.data(), values.rows(), values.cols());
        }
    }
    return model;
}

Rows random_orthogonal(Index n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Rows q(n, n);
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) q(i, j) = normal(random);
        for (int pass = 0; pass < 2; ++pass) {  // Gram-Schmidt, twice for float
            for (Index k = 0; k < i; ++k) q.row(i) -= q.row(i).dot(q.row(k)) * q.row(k);
        }
        q.row(i).normalize();
    }
    return q;
}

}  // namespace

TEST_CASE("llama: logits of the shipped model are those of the original implementation", "[llama]") {
    constexpr float tolerance = 2e-3f;  // the original computes in float too, in another order
    const residua::io::SafetensorsFile golden(RESIDUA_TEST_DATA_DIR "/tiny_llama_logits.safetensors");
    const auto tokens = golden.read<Token>("tokens");
    const auto wanted = golden.read<float>("logits");
    const Rows found = logits(shipped_model(), tokens);
    REQUIRE(std::size_t(found.size()) == wanted.size());
    CHECK(largest_difference(found, Eigen::Map<const Rows>(wanted.data(), found.rows(), found.cols())) <
          tolerance);
}

TEST_CASE("llama: what the shipped model lacks follows the textbook", "[llama]") {
    constexpr double tolerance = 2e-4;  // float against double, logits of size 10
    const Model model = random_model(GENERATE(Kind::Scaled, Kind::Experts, Kind::Gemma));
    std::vector<Token> tokens;
    for (int i = 0; i < 100; ++i) tokens.push_back(i * 17 % 31);
    const Rows found = logits(model, tokens);
    const auto wanted = NaiveLlama(model).logits(tokens);
    double worst = 0;
    for (Index t = 0; t < found.rows(); ++t) {
        for (Index i = 0; i < found.cols(); ++i)
            worst = std::max(worst, std::abs(double(found(t, i)) - wanted[std::size_t(t)][std::size_t(i)]));
    }
    CHECK(worst < tolerance);
}

TEST_CASE("llama: perplexity is exp of the mean loss over all predictions", "[llama]") {
    const Model model = random_model();
    const Windows windows{{1, 2, 3, 4, 5}, {30, 7, 0}};
    double sum = 0;
    for (const auto& window : windows) {
        const auto rows = NaiveLlama(model).logits(window);
        for (std::size_t t = 0; t + 1 < window.size(); ++t) {
            double all = 0;
            for (const double value : rows[t]) all += std::exp(value);
            sum += std::log(all) - rows[t][std::size_t(window[t + 1])];
        }
    }
    const Runner runner(model.config, 5);
    CHECK(perplexity(runner, model, windows, residua::Executor(1)) ==
          Approx(std::exp(sum / 6)).epsilon(1e-4));
}

TEST_CASE("llama: rotations do not change what the model computes", "[llama]") {
    constexpr float tolerance = 1e-3f;
    const auto tokens = sample(64);
    const Rows wanted = logits(shipped_model(), tokens);
    const Config& c = shipped_model().config;
    const auto check = [&](const Rotations& rotations, const ActivationSettings& settings = {}) {
        Model model = shipped_model();
        rotate(model, rotations);
        CHECK(model.config.online_hadamard == rotations.online_hadamard);
        CHECK(largest_difference(logits(model, tokens, settings), wanted) < tolerance);
    };
    SECTION("QuaRot") { check(Rotations::hadamard(c, 0)); }
    SECTION("QuaRot, another seed, fused rotations alone") { check(Rotations::hadamard(c, 1, false)); }
    SECTION("any orthogonal matrices") {
        Rotations rotations{.residual = Rotation("R1", random_orthogonal(c.hidden, 1)), .head = {}};
        for (Index i = 0; i < c.blocks; ++i)
            rotations.head.emplace_back("R2", random_orthogonal(c.head_size, unsigned(i) + 2));
        check(rotations);
    }
    SECTION("biases and sizes that are no powers of two") {
        Model model = random_model(GENERATE(Kind::Scaled, Kind::Experts));
        std::vector<Token> text{1, 5, 30, 2, 2, 9};
        const Rows before = logits(model, text);
        rotate(model, Rotations::hadamard(model.config, 3));
        CHECK(largest_difference(logits(model, text), before) < tolerance);
    }
}

TEST_CASE("llama: a model whose norms no layer can take is not rotated", "[llama]") {
    CHECK_THROWS_WITH(
        Rotations::hadamard(random_model(Kind::Gemma).config, 0),
        "residua: rotations: model_type is gemma3_text, expected one without norms behind o_proj "
        "and down_proj");
}

TEST_CASE("llama: a rotated model holds up to rounding, one with outlier channels does not", "[llama]") {
    constexpr double recovered = 0.8;  // least part of the excess perplexity that rotation takes away
    constexpr float factor = 50;
    const Windows windows{sample(96), sample(96, 700)};
    const Model outliers = with_outliers(shipped_model(), factor);
    CHECK(largest_difference(logits(outliers, windows[0]), logits(shipped_model(), windows[0])) < 1e-3f);

    const ActivationSettings four_bits{.inputs = residua::ActivationQuantizer{.bits = 4, .clip_ratio = 0.9}};
    const auto measure = [&](const Model& model, const ActivationSettings& settings) {
        return perplexity(Runner(model.config, 96, settings), model, windows, residua::Executor());
    };
    Model rotated = outliers;
    rotate(rotated, Rotations::hadamard(rotated.config, 0));
    const double full = measure(outliers, {});
    const double ruined = measure(rounded(outliers), four_bits);
    const double saved = measure(rounded(rotated), four_bits);
    INFO("full precision " << full << ", 4 bits " << ruined << ", rotated " << saved);
    CHECK(ruined > 2 * full);
    CHECK(saved - full < (1 - recovered) * (ruined - full));
}

TEST_CASE("llama: cached keys and values are rounded per head", "[llama]") {
    const auto tokens = sample(48);
    const Rows wanted = logits(shipped_model(), tokens);
    double previous = 0;
    for (const int bits : {8, 4, 2}) {
        const ActivationSettings settings{.cache = residua::ActivationQuantizer{.bits = bits}};
        const double error =
            double((logits(shipped_model(), tokens, settings) - wanted).norm() / wanted.norm());
        INFO(bits << " bits: " << error);
        CHECK(error > previous);
        CHECK(error < (bits == 8 ? 0.01 : 1.0));
        previous = error;
    }
}
