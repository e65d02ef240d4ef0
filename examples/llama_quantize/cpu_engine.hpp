#pragma once

#include "engine.hpp"
#include "host_calibration.hpp"

/// Everything in host memory, in float.
class CpuEngine : public Engine {
  public:
    /// `executor` must outlive the engine.
    CpuEngine(const std::filesystem::path& folder, const llama::Rotations* rotations,
              std::unique_ptr<LayerSolver> solver, const residua::Executor& executor,
              const Calibration::Segments& segments)
        : model_(llama::read_model(folder)),
          executor_(executor),
          solver_(std::move(solver)),
          segments_(segments) {
        if (rotations) llama::rotate(model_, *rotations);
    }

    const llama::Model& model() const override { return model_; }

    std::unique_ptr<Calibration> calibrate(const llama::Windows& windows, residua::Index references,
                                           const llama::ActivationSettings& activations) override {
        return std::make_unique<HostCalibration>(model_, windows, references, activations, *solver_,
                                                 executor_, segments_);
    }

    llama::Loss loss(const llama::Windows& windows, const llama::ActivationSettings& activations,
                     const std::function<void(residua::Index)>& progress) override {
        const llama::Runner runner(model_.config, llama::longest(windows), activations);
        return llama::loss(runner, model_, windows, executor_, progress);
    }

  private:
    llama::Model model_;
    const residua::Executor& executor_;
    std::unique_ptr<LayerSolver> solver_;
    Calibration::Segments segments_;
};
