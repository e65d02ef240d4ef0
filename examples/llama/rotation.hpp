#pragma once

#include <residua/transform/hadamard.hpp>
#include <variant>

#include "runner.hpp"

namespace llama {

/// An orthogonal matrix Q, n x n, of one of the model's spaces: of a fast transform, or any other. Of weights
/// with more inputs or outputs than n, every n neighbours (a head) are rotated.
class Rotation {
  public:
    explicit Rotation(residua::HadamardTransform transform) : matrix_(std::move(transform)) {}

    /// Throws std::invalid_argument unless `matrix` is orthogonal; `name` is what the error calls it.
    Rotation(const std::string& name, Rows matrix) : matrix_(Rows()) {
        constexpr float tolerance = 1e-3f;  // of matrices that were stored in bfloat16
        residua::require(matrix.rows() == matrix.cols(), name + " has columns:", matrix.cols(),
                         std::to_string(matrix.rows()) + ", as many as rows");
        const Rows identity = Rows::Identity(matrix.rows(), matrix.rows());
        const float error = (matrix * matrix.transpose() - identity).cwiseAbs().maxCoeff();
        residua::require(error < tolerance, name + ": |Q Q' - I| is", error,
                         "below 1e-3: an orthogonal matrix");
        matrix_ = std::move(matrix);
    }

    /// W <- W Q for weights that read x Q, or rows x themselves.
    void rotate_inputs(Rows& w) const {
        const Index n = size();
        const Index rows = w.size() / n;
        if (const auto* fast = std::get_if<residua::HadamardTransform>(&matrix_))
            return fast->apply(residua::MatrixView<float>(w.data(), rows, n));
        Eigen::Map<Rows> split(w.data(), rows, n);
        split = (split * std::get<Rows>(matrix_)).eval();
    }

    /// W <- Q' W for weights that write x Q.
    void rotate_outputs(Rows& w) const {
        const Index n = size();
        for (Index first = 0; first < w.rows(); first += n) {
            if (const auto* fast = std::get_if<residua::HadamardTransform>(&matrix_)) {
                fast->apply_left(view(w).row_range(first, n));
            } else {
                w.middleRows(first, n) =
                    (std::get<Rows>(matrix_).transpose() * w.middleRows(first, n)).eval();
            }
        }
    }

    void rotate_outputs(Linear& layer) const {
        rotate_outputs(layer.weight);
        if (layer.bias.size() == 0) return;
        Rows bias = layer.bias;
        rotate_inputs(bias);
        layer.bias = bias;
    }

  private:
    Index size() const {
        const auto* fast = std::get_if<residua::HadamardTransform>(&matrix_);
        return fast ? fast->features() : std::get<Rows>(matrix_).rows();
    }

    std::variant<residua::HadamardTransform, Rows> matrix_;
};

/// Where a model is rotated: R1 the residual stream, R2 of each block the space between v_proj and o_proj of
/// one head (SpinQuant's names).
struct Rotations {
    Rotation residual;
    std::vector<Rotation> head;   ///< one for each block
    bool online_hadamard = true;  ///< Hadamard transforms before o_proj (across heads) and down_proj as well

    /// QuaRot (arXiv 2404.00456): Hadamard matrices with random signs in the residual stream.
    static Rotations hadamard(const Config& c, std::uint64_t seed, bool online = true) {
        require_rotatable(c);
        const Rotation head(residua::HadamardTransform(c.head_size));
        return {.residual = Rotation(residua::HadamardTransform(c.hidden, {.seed = seed})),
                .head = std::vector<Rotation>(std::size_t(c.blocks), head),
                .online_hadamard = online};
    }

    /// A safetensors file with R1 (hidden, hidden) and model.layers.<i>.self_attn.R2 (head_dim, head_dim), as
    /// SpinQuant (arXiv 2405.16406) learns them.
    static Rotations read(const std::filesystem::path& path, const Config& c, bool online = true) {
        require_rotatable(c);
        const residua::io::SafetensorsFile file(path);
        Rotations rotations{.residual = Rotation("R1", detail::read_matrix(file, "R1", c.hidden, c.hidden)),
                            .head = {},
                            .online_hadamard = online};
        for (Index i = 0; i < c.blocks; ++i) {
            const std::string name = block_prefix(i) + "self_attn.R2";
            rotations.head.emplace_back(name, detail::read_matrix(file, name, c.head_size, c.head_size));
        }
        return rotations;
    }

    /// Throws std::invalid_argument for norms between a linear layer and the residual stream: their weights can be
    /// moved into no layer.
    static void require_rotatable(const Config& c) {
        residua::require(!c.output_norms, "rotations: model_type is", c.type,
                         "one without norms behind o_proj and down_proj");
    }

    /// The same for rotations that learn_rotations() can learn.
    static void require_learnable(const Config& c) {
        require_rotatable(c);
        residua::require(c.experts.count == 0, "learned rotations: experts of the model:", c.experts.count,
                         "none, whose layers have tokens of their own");
    }
};

/// Moves the norms' weights into the linear layers that read them; the norms become ones.
inline void fuse_norms(Model& model) {
    const auto scale_columns = [](Rows& w, const Vector& scale) { w.array().rowwise() *= scale.array(); };
    for (Block& block : model.blocks) {
        for (BlockLayer& layer : block.layers) {
            if (layer.spec.input == Input::Attention)
                scale_columns(layer.linear.weight, block.attention_norm);
            if (layer.spec.input == Input::Mlp) scale_columns(layer.linear.weight, block.mlp_norm);
        }
        if (block.has_experts()) scale_columns(block.router.weight, block.mlp_norm);
        block.attention_norm.setOnes();
        block.mlp_norm.setOnes();
    }
    scale_columns(model.head, model.norm);
    model.norm.setOnes();
    model.config.tied_head = false;
}

/// Rotates the model without changing what it computes. Norms are fused first: a norm of ones commutes with
/// rotations.
inline void rotate(Model& model, const Rotations& rotations) {
    const Config& c = model.config;
    fuse_norms(model);
    const Rotation& residual = rotations.residual;
    residual.rotate_inputs(model.embedding);
    residual.rotate_inputs(model.head);
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        Block& block = model.blocks[i];
        for (BlockLayer& layer : block.layers) {
            const bool reads_stream = layer.spec.input == Input::Attention || layer.spec.input == Input::Mlp;
            if (reads_stream)
                residual.rotate_inputs(layer.linear.weight);
            else
                residual.rotate_outputs(layer.linear);
        }
        if (block.has_experts()) residual.rotate_inputs(block.router.weight);
        rotations.head[i].rotate_outputs(block[Role::Value]);
        rotations.head[i].rotate_inputs(block[Role::Output].weight);
    }
    if (!rotations.online_hadamard) return;
    const OnlineRotations online(c);
    for (Block& block : model.blocks) {
        online.output.apply(view(block[Role::Output].weight));
        for (BlockLayer& layer : block.layers) {
            const auto& rotation = layer.spec.expert == every_token ? online.down : online.expert;
            if (layer.spec.role == Role::Down) rotation.apply(view(layer.linear.weight));
        }
    }
    model.config.online_hadamard = true;
}

}  // namespace llama
