// workspace_bytes() against what a solve takes from the host's memory, counted where matrices get theirs; and
// what happens where there is no more, at every single allocation.

#include <atomic>
#include <cstdlib>
#include <new>
#include <optional>

#include "catch.hpp"
#include "residua/solver/workspace.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

namespace {

// Of live allocations with an alignment of their own, which matrices alone ask for. A block starts with its size.
std::atomic<std::size_t> used_bytes = 0;
std::atomic<std::size_t> peak_bytes = 0;
constexpr std::size_t header = 64;

// Allocations of any kind that still succeed; below 0: all of them.
std::atomic<long> allocations_left = -1;

bool is_out_of_memory() {
    long left = allocations_left;
    while (left > 0 && !allocations_left.compare_exchange_weak(left, left - 1)) {
    }
    return left == 0;
}

}  // namespace

// Not inlined, for compilers then take free() and new for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    void* const memory = is_out_of_memory() ? nullptr : std::malloc(bytes > 0 ? bytes : 1);
    if (!memory) throw std::bad_alloc();
    return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

void* operator new(std::size_t bytes, std::align_val_t alignment) {
    const auto align = static_cast<std::size_t>(alignment);
    if (align > header || is_out_of_memory()) throw std::bad_alloc();
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

namespace {

/// Lets `call` fail at its first allocation, its second and so on, until it gets through. check() looks at what
/// each failure left behind, and removes what is rightly kept. How many there were.
template <class Call, class Check>
int fail_everywhere(Call call, Check check) {
    for (int k = 0;; ++k) {
        const std::size_t before = used_bytes;
        bool failed = false;
        allocations_left = k;
        try {
            call();
        } catch (const std::bad_alloc&) {
            failed = true;
        }
        allocations_left = -1;
        if (!failed) return k;
        CAPTURE(k);
        check();
        REQUIRE(used_bytes == before);
    }
}

template <class Method>
void check_out_of_memory(const Layer& layer, const SolverOptions& options) {
    INFO(Method::name);
    const auto moments = moments_of<EigenFloat>(layer);
    const auto w = upload<EigenFloat>(layer.w);
    const SolverOf<Method, EigenFloat> solver(moments, options);
    const auto expected = fetch<EigenFloat>(solver.quantize(w.view(), IntegerGrid{}));
    moments.forget_factorization();
    const int failures = fail_everywhere([&] { (void)solver.quantize(w.view(), IntegerGrid{}); },
                                         [&] { moments.forget_factorization(); });
    CHECK(failures > 30);
    // nothing that the failures touched is any different
    const auto again = fetch<EigenFloat>(solver.quantize(w.view(), IntegerGrid{}));
    CHECK(again.codes == expected.codes);
    CHECK(again.scales == expected.scales);
    CHECK(again.report.objective->symmetric == expected.report.objective->symmetric);
}

}  // namespace

TEST_CASE("A solve without memory ends in an exception and changes nothing", "[solver][memory]") {
    const Layer layer = random_layer({.out = 6, .in = 40, .tokens = 60, .seed = 3});
    SolverOptions options;
    options.group_size = 16;
    options.report_objective = true;
    options.refinement.rounds = 1;
    check_out_of_memory<GPTQ>(layer, options);
    check_out_of_memory<ResidualComp>(layer, options);
    check_out_of_memory<QEP>(layer, options);
}

TEST_CASE("Moments without memory for a batch say so from then on", "[solver][memory]") {
    const Layer layer = random_layer({.out = 1, .in = 40, .tokens = 60, .seed = 3});
    const auto x = upload<EigenFloat>(layer.x);
    const auto x_fp = upload<EigenFloat>(layer.x_fp);
    const MomentsOf<EigenFloat> whole = moments_of<EigenFloat>(layer);
    std::optional<MomentsOf<EigenFloat>> moments;
    const auto refused = [&](const auto& call) {
        const std::string text = message_of(call);
        CAPTURE(text);
        CHECK((text.empty() || contains(text, "left incomplete by an error")));
        return !text.empty();
    };
    int incomplete = 0;
    const auto begin = [&] { moments.emplace(EigenFloat::get(), layer.n); };
    begin();
    const int batches = fail_everywhere([&] { moments->accumulate(x.view(), x_fp.view()); },
                                        [&] {
                                            CHECK(moments->tokens() == 0);
                                            incomplete +=
                                                refused([&] { moments->accumulate(x.view(), x_fp.view()); });
                                            begin();
                                        });
    CHECK(batches > 3);
    CHECK(incomplete > 3);
    CHECK(EigenFloat::get().read(moments->gram()) == EigenFloat::get().read(whole.gram()));

    begin();
    fail_everywhere([&] { moments->merge(whole); },
                    [&] {
                        CHECK(moments->tokens() == 0);
                        refused([&] { moments->merge(whole); });
                        begin();
                    });
    CHECK(EigenFloat::get().read(moments->cross()) == EigenFloat::get().read(whole.cross()));
}
