// What several threads may do at once, for the thread sanitizer to watch: quantize with one solver, with solvers
// that share moments, and on a backend whose tasks run on an engine's own threads. Results are the bits of one
// thread.

#include <atomic>
#include <thread>

#include "catch.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

namespace {

using Codes = std::vector<int>;
using Work = std::function<Codes()>;

/// Every work on a thread of its own; all start together.
std::vector<Codes> at_once(const std::vector<Work>& works) {
    std::vector<Codes> results(works.size());
    std::atomic<std::size_t> ready = 0;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < works.size(); ++i) {
        threads.emplace_back([&, i] {
            ++ready;
            while (ready < works.size()) std::this_thread::yield();
            results[i] = works[i]();
        });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
}

std::vector<Codes> in_turn(const std::vector<Work>& works) {
    std::vector<Codes> results;
    for (const Work& work : works) results.push_back(work());
    return results;
}

/// An engine's parallel loop: two threads and the caller's take the next task until there is none. Callers may
/// be several.
void parallel_for(Index count, const Executor::Task& task) {
    std::atomic<Index> next = 0;
    const auto take = [&] {
        for (Index i = next++; i < count; i = next++) task(i);
    };
    if (count == 1) return task(0);
    std::thread first(take), second(take);
    take();
    first.join();
    second.join();
}

/// The calling thread alone.
EigenBackend& one_thread() {
    static EigenBackend backend{Executor(1)};
    return backend;
}

/// Threads of an engine.
EigenBackend& engine() {
    static EigenBackend backend{Executor(3, parallel_for)};
    return backend;
}

// Tiles, panels and batches of the backend are wider than this, runs of rows and tiles of the sweep are not.
constexpr Index in_features = 70;

/// Weights that fewer (thin) or more rows than in_features have: QEP goes another way for each.
struct Problem {
    Layer layer =
        random_layer({.out = 3 * in_features, .in = in_features, .tokens = 600, .dead = {5}, .seed = 3});
    Index rows = 40;

    MatrixView<const double> weights(Index part) const {
        return {layer.w.data.data() + part * in_features, rows, in_features};
    }
    MatrixView<const double> x() const { return {layer.x.data.data(), layer.tokens, in_features}; }
    MatrixView<const double> x_fp() const { return {layer.x_fp.data.data(), layer.tokens, in_features}; }

    Moments<double, EigenBackend> moments(EigenBackend& backend) const {
        Moments<double, EigenBackend> sums(backend, in_features);
        sums.accumulate(x(), x_fp());
        return sums;
    }
};

SolverOptions options_of(Ordering ordering, int rounds = 0) {
    SolverOptions options;
    options.group_size = 32;
    options.block_size = 16;
    options.ordering = ordering;
    options.refinement.rounds = rounds;
    options.report_objective = true;
    return options;
}

template <class S>
Codes codes_by(const S& solver, MatrixView<const double> weights) {
    const auto result = solver.quantize(weights, IntegerGrid{.bits = 3});
    const auto codes = solver.moments().backend().read(result.codes.view());
    return Codes(codes.begin(), codes.end());
}

template <class M>
void check_one_solver(EigenBackend& backend, const Problem& problem) {
    const auto work = [&](const auto& solver) {
        std::vector<Work> works;
        for (Index part = 0; part < 4; ++part)
            works.push_back([&solver, &problem, part] { return codes_by(solver, problem.weights(part)); });
        return works;
    };
    INFO(M::name << ", rows " << problem.rows);
    const SolverOptions options = options_of(Ordering::Activation, 1);
    const auto moments = problem.moments(one_thread());
    const Solver<M, double, EigenBackend> alone(moments, options);
    const auto expected = in_turn(work(alone));
    CHECK(expected[0].size() == std::size_t(problem.rows * in_features));

    const auto shared = problem.moments(backend);  // not factored yet: all threads ask for it
    const Solver<M, double, EigenBackend> solver(shared, options);
    CHECK(at_once(work(solver)) == expected);
}

}  // namespace

TEMPLATE_TEST_CASE("Threads quantize with one solver", "[threads]", GPTQ, GPTAQ, ResidualComp, QEP, Qronos) {
    Problem problem;
    problem.rows = GENERATE(40, 2 * in_features);
    check_one_solver<TestType>(one_thread(), problem);
    check_one_solver<TestType>(engine(), problem);
}

TEST_CASE("Threads quantize with solvers that share moments", "[threads]") {
    const Problem problem;
    const auto works = [&](const Moments<double, EigenBackend>& moments) {
        std::vector<Work> all;
        const auto add = [&]<class M>(const M& method, Ordering ordering) {
            all.push_back([&, method, ordering] {
                return codes_by(Solver<M, double, EigenBackend>(moments, options_of(ordering), method),
                                problem.weights(1));
            });
        };
        // two factorizations, each of which takes the other's place in the moments
        for (const Ordering ordering : {Ordering::Natural, Ordering::Activation}) {
            add(GPTQ{}, ordering);
            add(GPTAQ{}, ordering);
            add(ResidualComp{}, ordering);
            add(QEP{}, ordering);
        }
        all.push_back([&] {
            moments.forget_factorization();
            Codes sums;  // what a reader of the moments sees meanwhile
            for (const double h : moments.backend().read(moments.gram())) sums.push_back(int(h));
            for (const double d : moments.backend().read(moments.cross())) sums.push_back(int(d));
            return sums;
        });
        return all;
    };
    const auto expected = in_turn(works(problem.moments(one_thread())));
    EigenBackend& backend = GENERATE(0, 1) == 0 ? one_thread() : engine();
    for (int repeat = 0; repeat < 3; ++repeat) {
        const auto moments = problem.moments(backend);
        CHECK(at_once(works(moments)) == expected);
    }
}

TEST_CASE("Threads share one factorization", "[threads]") {
    const Problem problem;
    const auto moments = problem.moments(engine());
    const FactorizationKey key{options_of(Ordering::Natural)};
    std::vector<const void*> made(4);
    std::vector<Work> works;
    for (std::size_t i = 0; i < made.size(); ++i) {
        works.push_back([&, i] {
            const auto factorization = moments.factorization(key);
            made[i] = factorization.get();
            const auto before = engine().read(factorization->residuals_before());
            const auto all = engine().read(factorization->residuals());
            const auto cross = factorization->cross_transposed();
            return Codes{int(factorization->status()), int(before.size()), int(all.size()),
                         int(cross.rows() * cross.cols())};
        });
    }
    constexpr int elements = int(in_features * in_features);
    for (const Codes& result : at_once(works))
        CHECK(result == Codes{int(Status::Success), elements, elements, elements});
    for (const void* one : made) CHECK(one == made[0]);
}

TEST_CASE("Threads accumulate moments of their own on one backend", "[threads]") {
    const Problem problem;
    const auto sums_of = [&](EigenBackend& backend, bool together) {
        std::vector<Moments<double, EigenBackend>> parts;
        for (int i = 0; i < 3; ++i) parts.emplace_back(backend, in_features);
        std::vector<Work> works;
        for (Index i = 0; i < 3; ++i) {
            works.push_back([&, i] {
                parts[std::size_t(i)].accumulate(problem.x().row_range(200 * i, 200),
                                                 problem.x_fp().row_range(200 * i, 200));
                return Codes();
            });
        }
        together ? at_once(works) : in_turn(works);
        parts[0].merge(parts[1]);
        parts[0].merge(parts[2]);
        auto sums = backend.read(parts[0].gram());
        const auto cross = backend.read(parts[0].cross());
        sums.insert(sums.end(), cross.begin(), cross.end());
        return sums;
    };
    const auto expected = sums_of(one_thread(), false);
    CHECK(sums_of(one_thread(), true) == expected);
    CHECK(sums_of(engine(), true) == expected);
}

TEST_CASE("An exception of a task reaches the caller, and the threads go on with other work", "[threads]") {
    for (const Executor& executor : {Executor(1), Executor(), Executor(3, parallel_for)}) {
        CAPTURE(executor.threads());
        for (const Index bad : {0, 7, 99}) {
            std::atomic<int> done = 0;
            CHECK_THROWS_AS(executor(100,
                                     [&](Index i) {
                                         if (i == bad) throw std::bad_alloc();
                                         ++done;
                                     }),
                            std::bad_alloc);
            CHECK(done < 100);
        }
        std::atomic<int> done = 0;
        executor(100, [&](Index) { ++done; });
        CHECK(done == 100);
    }
}
