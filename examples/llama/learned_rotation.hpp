#pragma once

#include <functional>
#include <residua/transform/learned_rotation.hpp>

#include "rotation.hpp"

namespace llama {

/// How learned rotations are learned.
struct LearningSettings {
    std::optional<residua::ActivationQuantizer> inputs =
        {};                                   ///< of the linear layers, as they will be rounded
    residua::IntegerGrid grid = {.bits = 4};  ///< of the weights
    Index group_size = residua::SolverOptions::per_channel;
    std::uint64_t seed = 0;  ///< of the Hadamard matrix that R1 starts from
    bool online = true;      ///< see Rotations
    Index tokens = 1024;     ///< of each input that is rounded, at most
    residua::RotationOptions steps = {};
};

/// What became of one rotation.
struct RotationRecord {
    std::string name;           ///< "R1", or "block 3 R2"
    std::vector<double> noise;  ///< see residua::LearnedRotation
    bool has_settled = false;
};

namespace detail {

/// What an input of a block is over the windows of a sample.
struct InputStatistics {
    Rows sample;  ///< (tokens, features), every so many tokens
    Rows gram;    ///< (features, features), the mean of x x' over all tokens
};

/// The inputs of each block in the full-precision model, by block and by input.
inline std::vector<std::vector<InputStatistics>> statistics_of_inputs(const Model& model,
                                                                      const Windows& windows, Index tokens,
                                                                      const residua::Executor& executor) {
    const Runner runner(model.config, longest(windows));
    std::vector<Activations> at(windows.size());
    Index all = 0;
    for (std::size_t i = 0; i < windows.size(); ++i) {
        at[i] = runner.embed(model, windows[i]);
        all += at[i].residual.rows();
    }
    const Index apart = std::max<Index>(1, all / tokens);
    std::vector<std::vector<InputStatistics>> statistics(model.blocks.size());
    residua::EigenBackend backend(executor);
    for (std::size_t b = 0; b < model.blocks.size(); ++b) {
        const Block& block = model.blocks[b];
        executor(Index(at.size()), [&](Index i) { runner.enter(block, at[std::size_t(i)]); });
        for (const Input input : inputs) {
            const Index features = at[0].input.cols();
            InputStatistics& found = statistics[b].emplace_back();
            found.gram = Rows::Zero(features, features);
            found.sample.resize((all + apart - 1) / apart, features);
            Index token = 0, row = 0;
            for (const Activations& a : at) {
                backend.accumulate_gram(view(a.input), {}, view(found.gram));
                for (Index t = 0; t < a.input.rows(); ++t, ++token)
                    if (token % apart == 0) found.sample.row(row++) = a.input.row(t);
            }
            backend.mirror(view(found.gram));
            found.gram /= float(all);
            executor(Index(at.size()), [&](Index i) { runner.advance(input, block, at[std::size_t(i)]); });
        }
    }
    return statistics;
}

/// The mean of |W x|^2 over tokens.
inline double output_energy(const Rows& w, const Rows& gram) {
    return (w * gram).cwiseProduct(w).cast<double>().sum();
}

}  // namespace detail

/// Rotations that lower what rounding adds to the outputs of the linear layers, each layer's as a part of its own mean
/// squared output on `windows`: R1 first, with Hadamard matrices in the heads, then R2 of each block. No gradient goes
/// through the model. See residua::RotationNoise and residua::learn_rotation().
///
/// Without settings.inputs only the weights are looked at, by the moments of all tokens. Throws std::invalid_argument for
/// models with experts, and for those that no rotation leaves as they are.
inline Rotations learn_rotations(const Model& original, const Windows& windows,
                                 const LearningSettings& settings, const residua::Executor& executor,
                                 const std::function<void(const RotationRecord&)>& report = {}) {
    const Config& c = original.config;
    Rotations::require_learnable(c);
    Model model = original;
    fuse_norms(model);
    auto statistics = detail::statistics_of_inputs(model, windows, settings.tokens, executor);

    // the transforms between R2 and o_proj and before down_proj, which are the same whatever is learned
    if (settings.online) {
        const OnlineRotations online(c);
        for (std::size_t b = 0; b < model.blocks.size(); ++b) {
            for (const auto& [input, role, transform] :
                 {std::tuple(Input::Output, Role::Output, &online.output),
                  std::tuple(Input::Down, Role::Down, &online.down)}) {
                detail::InputStatistics& x = statistics[b][std::size_t(input)];
                transform->apply(view(x.sample), executor);
                transform->apply(view(x.gram), executor);
                transform->apply_left(view(x.gram), executor);
                transform->apply(view(model.blocks[b][role].weight), executor);
            }
        }
    }

    using Noise = residua::RotationNoise<residua::EigenBackend>;
    residua::EigenBackend backend(executor);
    const auto squares_of = [](const Rows& gram) {
        const Eigen::VectorXd diagonal = gram.diagonal().cast<double>();
        return std::vector<double>(diagonal.begin(), diagonal.end());
    };
    const auto learn = [&](const std::string& name, Noise& noise, const residua::HadamardTransform& start) {
        const Index n = start.features();
        residua::Matrix<double> matrix(n, n);
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < n; ++j) matrix(i, j) = start.entry(i, j);
        }
        residua::LearnedRotation learned =
            residua::learn_rotation(noise, std::as_const(matrix).view(), settings.steps);
        if (report) report({name, learned.noise, learned.has_settled});
        Rows rotation(n, n);
        for (Index i = 0; i < n; ++i) {
            for (Index j = 0; j < n; ++j) rotation(i, j) = float(learned.rotation(i, j));
        }
        return rotation;
    };
    // x of an input with all layers that read it, each by its weight
    const auto add_readers = [&](Noise& noise, const Block& block, Input input,
                                 const detail::InputStatistics& x) {
        double squares = 0;  // of a column of all layers, in the mean
        for (const BlockLayer& layer : block.layers) {
            if (layer.spec.input != input) continue;
            const Rows& w = layer.linear.weight;
            const double weight = 1 / detail::output_energy(w, x.gram);
            noise.add_readers(view(w), settings.grid, settings.group_size, view(x.gram), weight);
            squares += weight * double(w.squaredNorm()) / double(w.cols());
        }
        if (settings.inputs) noise.add_inputs(view(x.sample), *settings.inputs, squares);
    };

    const residua::HadamardTransform head(c.head_size);
    Noise residual(backend, c.hidden);
    for (std::size_t b = 0; b < model.blocks.size(); ++b) {
        const Block& block = model.blocks[b];
        add_readers(residual, block, Input::Attention, statistics[b][std::size_t(Input::Attention)]);
        add_readers(residual, block, Input::Mlp, statistics[b][std::size_t(Input::Mlp)]);
        for (const BlockLayer& layer : block.layers) {
            const bool is_output = layer.spec.input == Input::Output;
            if (!is_output && layer.spec.input != Input::Down) continue;
            Rows w = layer.linear.weight;
            Rows gram = statistics[b][std::size_t(layer.spec.input)].gram;
            const double weight = 1 / detail::output_energy(w, gram);
            if (is_output) {
                const Rotation start(head);
                start.rotate_inputs(w);
                start.rotate_inputs(gram);
                start.rotate_outputs(gram);
            }
            residual.add_writers(view(std::as_const(w)), settings.grid, settings.group_size, squares_of(gram),
                                 weight);
        }
    }
    Rotations rotations{
        .residual = Rotation(
            "R1", learn("R1", residual, residua::HadamardTransform(c.hidden, {.seed = settings.seed}))),
        .head = {},
        .online_hadamard = settings.online};

    for (std::size_t b = 0; b < model.blocks.size(); ++b) {
        Block& block = model.blocks[b];
        const std::string name = "block " + std::to_string(b) + " R2";
        Rows& value = block[Role::Value].weight;
        Rows gram = statistics[b][std::size_t(Input::Attention)].gram;
        const double weight = 1 / detail::output_energy(value, gram);
        rotations.residual.rotate_inputs(value);
        rotations.residual.rotate_inputs(gram);
        rotations.residual.rotate_outputs(gram);
        rotations.residual.rotate_outputs(block[Role::Output].weight);
        Noise noise(backend, c.head_size);
        add_readers(noise, block, Input::Output, statistics[b][std::size_t(Input::Output)]);
        noise.add_writers(view(std::as_const(value)), settings.grid, settings.group_size, squares_of(gram),
                          weight);
        rotations.head.emplace_back(name, learn(name, noise, head));
    }
    return rotations;
}

}  // namespace llama
