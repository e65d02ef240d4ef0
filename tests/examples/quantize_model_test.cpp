/// The order of events in which llama_quantize calibrates and quantizes.

#include <llama_quantize/host_calibration.hpp>
#include <llama_quantize/quantize_model.hpp>

#include "catch.hpp"
#include "examples/random_llama.hpp"

using namespace llama;

namespace {

/// Rounds weights to quarters and keeps what it was given.
class RecordingSolver : public LayerSolver {
  public:
    struct Group {
        Index features = 0;
        std::vector<float> x = {}, x_fp = {}, h = {}, h_fp = {};
        std::vector<Rows> weights = {};
        std::vector<std::string> methods = {};
    };
    std::vector<Group> groups;

    void start(Index in_features) override { groups.push_back({.features = in_features}); }
    void accumulate(const TokenBatch<float>& batch) override {
        const auto append = [](residua::MatrixView<const float> from, std::vector<float>& to) {
            if (from.data) to.insert(to.end(), from.data, from.data + from.rows * from.cols);
        };
        append(batch.x, groups.back().x);
        append(batch.x_fp, groups.back().x_fp);
        append(batch.stream.h, groups.back().h);
        append(batch.stream.h_fp, groups.back().h_fp);
    }
    residua::NormGains<float> final_norm_gains(residua::MatrixView<const float> head) override {
        groups.back().weights.push_back(Eigen::Map<const Rows>(head.data, head.rows, head.cols));
        return {.values = std::vector<float>(std::size_t(head.cols), 1.5f)};
    }
    SolvedLayer solve(const std::string& method, residua::MatrixView<const float> w) override {
        groups.back().methods.push_back(method);
        groups.back().weights.push_back(Eigen::Map<const Rows>(w.data, w.rows, w.cols));
        SolvedLayer solved;
        solved.layer = {.rows = w.rows, .cols = w.cols, .groups = 1, .grid = {.bits = 8}};
        for (Index i = 0; i < w.rows * w.cols; ++i)
            solved.layer.codes.push_back(
                residua::Code(std::clamp(std::round(4 * w.data[i]) + 128, 0.0f, 255.0f)));
        solved.layer.scales.assign(std::size_t(w.rows), 0.25f);
        solved.layer.zeros.assign(std::size_t(w.rows), 128);
        solved.layer.group_index.assign(std::size_t(w.cols), 0);
        return solved;
    }
};

/// Quantizes `model` in place.
std::vector<LayerRecord> quantize(Model& model, const ModelMethod& method, const Windows& windows,
                                  const ActivationSettings& settings, LayerSolver& solver,
                                  const std::function<void(const Progress&)>& progress = {}) {
    const residua::Executor executor(1);
    Ranks alone;
    HostCalibration calibration(model, windows, method.references(Index(windows.size())), settings, solver,
                                executor, {});
    return ModelQuantizer(method, alone, progress).run(calibration, nullptr);
}

/// All windows at one point of one block, by a pass of their own: inputs of the linear layers, or residual streams.
std::vector<float> rows_at(const Model& model, const Windows& windows, Index block, Input at,
                           const ActivationSettings& settings, Rows Activations::*member) {
    const Runner runner(model.config, longest(windows), settings);
    std::vector<float> values;
    for (const auto& window : windows) {
        Activations a = runner.embed(model, window);
        for (Index i = 0; i < block; ++i) runner.run(model.blocks[std::size_t(i)], a);
        runner.enter(model.blocks[std::size_t(block)], a);
        for (const Input input : inputs) {
            if (input == at) break;
            runner.advance(input, model.blocks[std::size_t(block)], a);
        }
        const Rows& rows = a.*member;
        values.insert(values.end(), rows.data(), rows.data() + rows.size());
    }
    return values;
}

std::vector<float> inputs_at(const Model& model, const Windows& windows, Index block, Input at,
                             const ActivationSettings& settings) {
    return rows_at(model, windows, block, at, settings, &Activations::input);
}

/// What the output layer reads, but for the weights of the last norm: those of `norm`.
std::vector<float> last_inputs(const Model& model, const Windows& windows, const Vector& norm,
                               const ActivationSettings& settings) {
    const Runner runner(model.config, longest(windows), settings);
    std::vector<float> values;
    for (const auto& window : windows) {
        Activations a = runner.embed(model, window);
        for (const Block& block : model.blocks) runner.run(block, a);
        const Rows rows = rms_norm(a.residual, norm, model.config.norm_epsilon);
        values.insert(values.end(), rows.data(), rows.data() + rows.size());
    }
    return values;
}

}  // namespace

TEST_CASE("llama_quantize: layers are calibrated on what their quantized predecessors give", "[llama]") {
    const std::string method = GENERATE("qep", "gptq");
    const bool residual_stream = GENERATE(false, true);
    const bool final_norm = GENERATE(false, true);
    const Model original = random_model();
    const Windows windows{{1, 2, 3, 4, 5, 6}, {7, 8, 9}, {30, 20, 10, 0}};
    const ActivationSettings settings{.inputs = residua::ActivationQuantizer{.bits = 8}};
    Model model = original;
    RecordingSolver solver;
    std::vector<double> parts;
    const ModelMethod with{.name = method, .residual_stream = residual_stream, .final_norm = final_norm};
    const auto records =
        quantize(model, with, windows, settings, solver, [&](const Progress& p) { parts.push_back(p.part); });

    const std::vector<LayerSpec> layers = layers_of(original.config, 0);
    const std::size_t points = 8;  // q, k, v | o | gate, up | down, for two blocks
    REQUIRE(solver.groups.size() == points + final_norm);
    for (std::size_t i = 0; i < points; ++i) {
        const auto block = Index(i / inputs.size());
        const Input at = inputs[i % inputs.size()];
        CAPTURE(block, int(at));
        // all layers before this point have their final weights
        CHECK(solver.groups[i].x == inputs_at(model, windows, block, at, settings));
        const bool has_reference = method == "qep";
        CHECK(solver.groups[i].x_fp ==
              (has_reference ? inputs_at(original, windows, block, at, {}) : std::vector<float>()));
        const auto stream = [&](const Model& of, const ActivationSettings& rounding) {
            const bool is_written = at == Input::Output || at == Input::Down;
            return residual_stream && is_written
                       ? rows_at(of, windows, block, at, rounding, &Activations::residual)
                       : std::vector<float>();
        };
        CHECK(solver.groups[i].h == stream(model, settings));
        CHECK(solver.groups[i].h_fp == stream(original, {}));
        std::size_t next = 0;
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
            if (layers[layer].input != at) continue;
            const Linear& before = original.blocks[std::size_t(block)].layers[layer].linear;
            const Linear& after = model.blocks[std::size_t(block)].layers[layer].linear;
            CHECK(solver.groups[i].weights.at(next++) == before.weight);
            CHECK(after.weight == ((4 * before.weight.array()).round() / 4).matrix());
            CHECK(after.bias == before.bias);
        }
    }
    REQUIRE(records.size() == 14);
    CHECK(records[9].name == "model.layers.1.self_attn.v_proj");
    CHECK(std::is_sorted(parts.begin(), parts.end()));
    CHECK(parts.back() == 1);
    if (final_norm) {
        CHECK(solver.groups.back().x == last_inputs(model, windows, original.norm, settings));
        CHECK(solver.groups.back().x_fp == last_inputs(original, windows, original.norm, {}));
        CHECK(solver.groups.back().weights.at(0) == original.head);
    }
    CHECK(model.norm == (final_norm ? 1.5f : 1.0f) * original.norm);
    CHECK(model.embedding == original.embedding);
    CHECK(model.head == original.head);
}

TEST_CASE("llama_quantize: the output error compares with the full-precision model", "[llama]") {
    constexpr double tolerance = 1e-4;
    const Model original = random_model();
    const Windows windows{{1, 2, 3, 4, 5, 6}, {7, 8, 9}};
    Model model = original;
    RecordingSolver solver;
    const auto records = quantize(model, {.name = "qep"}, windows, {}, solver);
    const std::vector<LayerSpec> layers = layers_of(original.config, 0);
    for (std::size_t i = 0; i < records.size(); ++i) {
        const auto block = Index(i / layers.size());
        const std::size_t layer = i % layers.size();
        const Linear& q = model.blocks[std::size_t(block)].layers[layer].linear;
        const Linear& w = original.blocks[std::size_t(block)].layers[layer].linear;
        const auto x = inputs_at(model, windows, block, layers[layer].input, {});
        const auto x_fp = inputs_at(original, windows, block, layers[layer].input, {});
        const Index rows = Index(x.size()) / q.weight.cols();
        const Rows found = q(Eigen::Map<const Rows>(x.data(), rows, q.weight.cols()));
        const Rows wanted = w(Eigen::Map<const Rows>(x_fp.data(), rows, q.weight.cols()));
        CHECK(records[i].output_error ==
              Approx(double((found - wanted).norm() / wanted.norm())).epsilon(tolerance));
    }
}

namespace {

/// A router that sends no token to the last of five experts: by the sign of one number, to the first and the third
/// or to the second and the fourth.
void leave_out_the_last_expert(Block& block) {
    Rows& router = block.router.weight;
    const Rows direction = router.row(0);
    const float factors[] = {1, -1, 0.5f, -0.5f, 0};
    for (Index e = 0; e < router.rows(); ++e) router.row(e) = factors[e] * direction;
}

/// The rows of tokens that the router of the first block sends to an expert.
std::vector<float> rows_of_expert(const Model& model, const Windows& windows, Index expert) {
    const Runner runner(model.config, longest(windows));
    std::vector<float> values;
    for (const auto& window : windows) {
        Activations a = runner.embed(model, window);
        const Block& block = model.blocks[0];
        runner.enter(block, a);
        for (const Input input : {Input::Attention, Input::Output}) runner.advance(input, block, a);
        const Rows scores = a.input * block.router.weight.transpose();
        for (Index t = 0; t < scores.rows(); ++t) {
            const auto better = (scores.row(t).array() > scores(t, expert)).count();
            if (better >= model.config.experts.per_token) continue;
            values.insert(values.end(), a.input.row(t).begin(), a.input.row(t).end());
        }
    }
    return values;
}

}  // namespace

TEST_CASE("llama_quantize: each expert is calibrated on its own tokens, and is told by name where it has few",
          "[llama]") {
    Model original = random_model(Kind::Experts);
    leave_out_the_last_expert(original.blocks[0]);
    const Windows windows{{1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14}, {7, 8, 9}, {30, 20, 10, 0}};
    Model model = original;
    RecordingSolver solver;
    const auto records = quantize(model, {.name = "qep"}, windows, {}, solver);

    // the attention of the first block, two points of five experts, the four points of the second block
    REQUIRE(solver.groups.size() == 2 + 2 * 5 + 4);
    REQUIRE(records.size() == 4 + 3 * 5 + 7);
    std::size_t record = 4;
    Index sum = 0;
    for (Index e = 0; e < 5; ++e) {
        CAPTURE(e);
        const auto x = rows_of_expert(model, windows, e);
        const Index tokens = Index(x.size()) / original.config.hidden;
        sum += tokens;
        CHECK((tokens == 0) == (e == 4));
        const RecordingSolver::Group& mlp = solver.groups.at(2 + std::size_t(e));
        const RecordingSolver::Group& down = solver.groups.at(2 + 5 + std::size_t(e));
        CHECK(mlp.x == x);
        CHECK(mlp.x_fp.size() == x.size());
        CHECK(mlp.features == original.config.hidden);
        CHECK(down.features == original.config.experts.intermediate);
        CHECK(mlp.methods == std::vector<std::string>(2, tokens > 0 ? "qep" : "rtn"));
        CHECK(down.methods == std::vector<std::string>(1, tokens > 0 ? "qep" : "rtn"));

        // what down_proj reads, by the quantized gate and up
        const Eigen::Map<const Rows> rows(x.data(), tokens, original.config.hidden);
        const Rows gate = model.blocks[0].at(Role::Gate, e)(rows);
        const Rows hidden =
            (gate.array() / (1 + (-gate.array()).exp()) * model.blocks[0].at(Role::Up, e)(rows).array())
                .matrix();
        constexpr float tolerance = 1e-4f;  // float in another order
        REQUIRE(down.x.size() == std::size_t(hidden.size()));
        for (Index i = 0; i < hidden.size(); ++i)
            CHECK(std::abs(down.x[std::size_t(i)] - hidden.data()[i]) < tolerance);

        const std::string prefix = "model.layers.0.mlp.experts." + std::to_string(e) + ".";
        const std::string said =
            tokens == 0 ? "no calibration token reached this expert, its weights were rounded to nearest"
                        : "only " + std::to_string(tokens) +
                              " calibration tokens reached this expert, fewer than it has inputs";
        for (const char* name : {"gate_proj", "up_proj"}) {
            CHECK(records.at(record).name == prefix + name);
            CHECK(records.at(record).degradation.text() == said);
            ++record;
        }
        CHECK(records.at(14 + std::size_t(e)).name == prefix + "down_proj");
        CHECK((records.at(14 + std::size_t(e)).degradation.expert_tokens == tokens) ==
              (tokens < original.config.experts.intermediate));
    }
    CHECK(sum == 2 * 18);
    CHECK(records.back().degradation.text().empty());
    CHECK(std::isnan(records.at(4 + 2 * 4).output_error));  // of an expert without tokens
    CHECK(model.blocks[0].router.weight == original.blocks[0].router.weight);
}
