// A fast factorization has no last word.

#include <optional>

#include "catch.hpp"
#include "residua/backends/eigen.hpp"
#include "residua/solver/factored_gram.hpp"

using namespace residua;

namespace {

/// A backend with a fast factorization that does what it is told.
struct Fast : EigenBackend {
    std::optional<bool> outcome;
    int calls = 0;

    std::optional<bool> fast_cholesky_upper(MatrixView<double> a) {
        ++calls;
        if (!outcome) return outcome;
        if (*outcome) return cholesky_upper(a);
        for (Index i = 0; i < a.rows; ++i)
            for (Index j = i; j < a.rows; ++j) a(i, j) = -1e30;  // unspecified
        return false;
    }
};

constexpr Index gram_size = 5;

std::vector<double> small_gram() {
    std::vector<double> h(gram_size * gram_size);
    for (Index i = 0; i < gram_size; ++i)
        for (Index j = 0; j < gram_size; ++j)
            h[std::size_t(i * gram_size + j)] = (i == j ? 2.0 : 0.3) + 0.1 * double(i + j);
    return h;
}

}  // namespace

TEST_CASE("A factorization that fails fast is done again", "[factored_gram]") {
    Fast backend;
    std::vector<double> diagonal;
    for (Index i = 0; i < gram_size; ++i) diagonal.push_back(small_gram()[std::size_t(i * gram_size + i)]);
    const auto factored = [&](std::optional<bool> outcome, int tries) {
        backend.outcome = outcome;
        auto matrix = backend.allocate<double>(gram_size, gram_size);
        backend.write(small_gram(), matrix.view());
        FactoredGram<double, Fast> result(std::move(matrix), diagonal);
        for (int t = 1; t <= tries; ++t) CHECK(result.factor(backend, 0.5 * t));
        CHECK(result.is_fast() == (outcome == true));
        return backend.read(result.factor());
    };
    const std::vector<double> plain = factored({}, 1);
    CHECK(factored(true, 1) == plain);
    CHECK(factored(false, 1) == plain);
    CHECK(backend.calls == 3);
    const std::vector<double> damped = factored({}, 3);
    CHECK(damped != plain);
    CHECK(factored(true, 3) == damped);
    CHECK(factored(false, 3) == damped);
}
