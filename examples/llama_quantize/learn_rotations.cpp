#include "learn_rotations.hpp"

#include <chrono>
#include <cstdio>

#include "../llama/learned_rotation.hpp"

llama::Rotations learn_rotations(const Settings& settings, const llama::Windows& calibration,
                                 const residua::Executor& executor, bool speaks) {
    using Clock = std::chrono::steady_clock;
    constexpr std::size_t most_windows =
        16;  // ranges of more tokens than there are choices in R1 differ by little
    const llama::Windows windows(
        calibration.begin(),
        calibration.begin() + std::ptrdiff_t(std::min(most_windows, calibration.size())));
    llama::LearningSettings learning{.inputs = settings.activations.inputs,
                                     .grid = settings.solve.grid,
                                     .group_size = settings.solve.options.group_size,
                                     .seed = settings.rotation_seed,
                                     .online = settings.online_hadamard};
    learning.steps.steps = settings.rotation_steps;
    const auto start = Clock::now();
    const auto say = [&](const llama::RotationRecord& record) {
        if (speaks)
            std::fprintf(stderr, "%s: noise %.4g, %.4g after %zu steps, %.1f s\n", record.name.c_str(),
                         record.noise.front(), record.noise.back(), record.noise.size() - 1,
                         std::chrono::duration<double>(Clock::now() - start).count());
    };
    return llama::learn_rotations(llama::read_model(settings.model), windows, learning, executor, say);
}
