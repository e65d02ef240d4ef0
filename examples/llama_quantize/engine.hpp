#pragma once

#include <functional>
#include <memory>

#include "../llama/perplexity.hpp"
#include "../llama/rotation.hpp"
#include "../support/solve_settings.hpp"
#include "calibration.hpp"
#include "ranks.hpp"

/// A model on some device, to be quantized and measured there.
class Engine {
  public:
    virtual ~Engine() = default;

    /// The model in host memory, but perhaps for the weights of its linear layers, its embedding and its output layer.
    virtual const llama::Model& model() const = 0;

    /// Windows on their way through the model, the first `references` of them through a copy that stays as it is.
    /// `windows` must outlive what is returned, the engine too.
    virtual std::unique_ptr<Calibration> calibrate(const llama::Windows& windows, residua::Index references,
                                                   const llama::ActivationSettings& activations) = 0;

    /// See llama::loss(). Of what the last calibration has made of the model.
    virtual llama::Loss loss(const llama::Windows& windows, const llama::ActivationSettings& activations,
                             const std::function<void(residua::Index)>& progress) = 0;
};

/// The model in a folder, rotated unless `rotations` is null.
#ifdef RESIDUA_EXAMPLE_CUDA
static_assert(EIGEN_MAX_ALIGN_BYTES == 64, "g++ and nvcc hand llama::Model over: see cmake/developer.cmake");

/// On the GPU of this rank's number among those of its host. Unless it is rotated or quantized, its weights pass from
/// the mapped files to the device, a block at a time.
std::unique_ptr<Engine> make_cuda_engine(const std::filesystem::path& folder,
                                         const llama::Rotations* rotations, const SolveSettings& settings,
                                         Ranks& ranks, const Cooperation& cooperation);
#else
inline std::unique_ptr<Engine> make_cuda_engine(const std::filesystem::path&, const llama::Rotations*,
                                                const SolveSettings&, Ranks&, const Cooperation&) {
    residua::reject("--device", "cuda", "cpu: this program was built without RESIDUA_CUDA");
}
#endif
