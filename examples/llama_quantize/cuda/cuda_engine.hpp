#pragma once

#include "../../llama/cuda/tensors.hpp"
#include "../engine.hpp"

/// Of a model that has its tensors from `source`: of `model` the configuration and the last norm are read.
std::unique_ptr<Engine> make_cuda_engine(std::shared_ptr<llama::Model> model,
                                         std::unique_ptr<llama::cuda::TensorSource> source,
                                         const SolveSettings& settings, Ranks& ranks,
                                         const Cooperation& cooperation);
