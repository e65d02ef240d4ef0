// Eigen 3.4 marks defaulted functions for the device, which nvcc remarks on.
#pragma nv_diag_suppress 20012

#include "cuda/cuda_calibration.hpp"
#include "cuda/cuda_engine.hpp"

namespace {

class CudaEngine : public Engine {
  public:
    CudaEngine(std::shared_ptr<llama::Model> model, std::unique_ptr<llama::cuda::TensorSource> source,
               const SolveSettings& settings, Ranks& ranks, const Cooperation& cooperation)
        : model_(std::move(model), std::move(source), settings, ranks, cooperation),
          segments_{cooperation.segments_of(ranks), cooperation.segments_here(ranks)} {}

    const llama::Model& model() const override { return model_.host(); }

    std::unique_ptr<Calibration> calibrate(const llama::Windows& windows, residua::Index references,
                                           const llama::ActivationSettings& activations) override {
        return std::make_unique<CudaCalibration>(model_, windows, references, activations, segments_);
    }

    llama::Loss loss(const llama::Windows& windows, const llama::ActivationSettings& activations,
                     const std::function<void(residua::Index)>&) override {
        return model_.loss(windows, activations);
    }

  private:
    CudaModel model_;
    Calibration::Segments segments_;
};

}  // namespace

std::unique_ptr<Engine> make_cuda_engine(std::shared_ptr<llama::Model> model,
                                         std::unique_ptr<llama::cuda::TensorSource> source,
                                         const SolveSettings& settings, Ranks& ranks,
                                         const Cooperation& cooperation) {
    return std::make_unique<CudaEngine>(std::move(model), std::move(source), settings, ranks, cooperation);
}

std::unique_ptr<Engine> make_cuda_engine(const std::filesystem::path& folder,
                                         const llama::Rotations* rotations, const SolveSettings& settings,
                                         Ranks& ranks, const Cooperation& cooperation) {
    int devices = 1;
    residua::detail::cuda::check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    residua::detail::cuda::check(cudaSetDevice(ranks.local_rank() % devices), "cudaSetDevice");
    const bool passes_through = !rotations && llama::Config::read(folder).quantization.is_null();
    auto model = std::make_shared<llama::Model>(
        llama::read_model(folder, passes_through ? llama::Matrices::LeaveOut : llama::Matrices::Read));
    if (rotations) llama::rotate(*model, *rotations);
    std::unique_ptr<llama::cuda::TensorSource> source;
    if (passes_through) {
        source = std::make_unique<llama::cuda::FileTensors>(folder);
    } else {
        source = std::make_unique<llama::cuda::ModelTensors>(*model);
    }
    return make_cuda_engine(std::move(model), std::move(source), settings, ranks, cooperation);
}
