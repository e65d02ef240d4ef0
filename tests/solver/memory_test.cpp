// workspace_bytes() against what a solve takes from the host's memory, counted where matrices get theirs.

#include <atomic>
#include <cstdlib>
#include <new>

#include "catch.hpp"
#include "residua/solver/workspace.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

namespace {

// Of live allocations with an alignment of their own, which matrices alone ask for. A block starts with its size.
std::atomic<std::size_t> used_bytes = 0;
std::atomic<std::size_t> peak_bytes = 0;
constexpr std::size_t header = 64;

}  // namespace

void* operator new(std::size_t bytes, std::align_val_t alignment) {
    const auto align = static_cast<std::size_t>(alignment);
    if (align > header) throw std::bad_alloc();
    auto* block =
        static_cast<std::size_t*>(std::aligned_alloc(header, (bytes + 2 * header - 1) / header * header));
    if (!block) throw std::bad_alloc();
    *block = bytes;
    const std::size_t now = used_bytes += bytes;
    if (now > peak_bytes) peak_bytes = now;
    return reinterpret_cast<char*>(block) + header;
}

void operator delete(void* memory, std::align_val_t) noexcept {
    if (!memory) return;
    char* const block = static_cast<char*>(memory) - header;
    used_bytes -= *reinterpret_cast<std::size_t*>(block);
    std::free(block);
}

using namespace residua;
using namespace residua::test;

namespace {

// Rows of some matrices lie a cache line farther apart than they are long, and flags take a few bytes.
constexpr double padding = 0.02;

template <class Method>
void check_plan(const Layer& layer, const SolverOptions& options, Inputs inputs = Inputs::WithReference) {
    auto& backend = EigenFloat::get();
    const IntegerGrid grid;
    const auto moments = moments_of<EigenFloat>(layer, inputs);
    const auto w = upload<EigenFloat>(layer.w);
    const SolverOf<Method, EigenFloat> solver(moments, options);
    const std::size_t before = used_bytes;
    peak_bytes = before;
    REQUIRE(solver.quantize(w.view(), grid));
    const double taken = double(peak_bytes - before);
    const PlannedMoments held{.reference = moments.has_reference(),
                              .residual_stream = moments.has_residual_stream()};
    const double announced =
        double(workspace_bytes<Method, float>(backend, layer.m, layer.n, options, held, grid));
    CAPTURE(Method::name, layer.m, options.report_objective, options.refinement.rounds, options.group_size,
            options.static_groups, int(options.ordering), taken / announced);
    CHECK(taken <= (1 + padding) * announced);
    CHECK(taken >= (1 - padding) * announced);
}

}  // namespace

TEST_CASE("A solve takes the memory that was announced", "[solver][memory]") {
    for (const Index out : {40, 300}) {
        const Layer layer = random_layer({.out = out, .in = 200, .tokens = 300});
        for (const bool objective : {false, true}) {
            for (const int rounds : {0, 1}) {
                for (const Index group : {Index(32), Index(150), SolverOptions::per_channel}) {
                    SolverOptions options;
                    options.report_objective = objective;
                    options.refinement.rounds = rounds;
                    options.group_size = group;
                    options.ordering = rounds == 0 ? Ordering::Natural : Ordering::Activation;
                    options.static_groups = rounds == 1;
                    check_plan<GPTQ>(layer, options);
                    check_plan<GPTAQ>(layer, options);
                    check_plan<QEP>(layer, options);
                    check_plan<GPTQ>(layer, options, Inputs::StreamAlone);
                    check_plan<GPTAQ>(layer, options, Inputs::WithStream);
                    check_plan<QEP>(layer, options, Inputs::WithStream);
                }
            }
        }
    }
}
