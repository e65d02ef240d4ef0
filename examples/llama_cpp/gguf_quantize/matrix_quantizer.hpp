#pragma once

#include "../../support/ggml_solvers.hpp"
#include "gguf_index.hpp"
#include "record.hpp"
#include "settings.hpp"

/// A matrix as a file holds it.
struct MatrixInFile {
    std::vector<std::byte> bytes;
    Record record;
};

/// Quantizes single matrices onto whatever type a file has for them: by a method of ours where the type has a grid, else by
/// ggml's own quantizer with the diagonal of H for an importance matrix.
class MatrixQuantizer {
  public:
    using Moments = compiled::Moments<compiled::Cpu>;

    /// `threads`: 0 for as many as the machine has.
    MatrixQuantizer(std::string method, SolveSettings settings, int threads);

    compiled::Cpu& backend() { return backend_; }
    int threads() const { return executor_.threads(); }

    /// `weights` has the shape of a matrix of `tensor`, whose type counts. Throws std::runtime_error where the method cannot
    /// solve it.
    MatrixInFile operator()(const GGUFIndex::Tensor& tensor, residua::Index matrix, compiled::Values weights,
                            const Moments& moments);

    /// Bytes that a solve takes beside the moments and the weights, about.
    static double memory_for(double rows, double cols);

  private:
    std::vector<std::byte> by_ggml(ggml_type type, compiled::Values weights, const Moments& moments);

    std::string method_;
    SolveSettings settings_;
    residua::Executor executor_;
    compiled::Cpu backend_;
};
