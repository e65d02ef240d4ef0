#include <limits>
#include <vector>

#include "catch.hpp"
#include "residua/io/formats/moments.hpp"
#include "safetensors_bytes.hpp"
#include "support/backends.hpp"
#include "support/layer.hpp"

using namespace residua;
using namespace residua::test;

TEMPLATE_TEST_CASE("moments that are read back are the same bits and give the same codes", "[moments]",
                   RESIDUA_TEST_BACKENDS) {
    using T = typename TestType::Scalar;
    auto& backend = TestType::get();
    const TemporaryFolder folder;
    const Layer layer = random_layer({.out = 9, .in = 70, .tokens = 150, .dead = {3}});

    for (const Inputs inputs :
         {Inputs::Quantized, Inputs::WithReference, Inputs::WithStream, Inputs::StreamAlone}) {
        const auto written = moments_of<TestType>(layer, inputs);
        io::write_moments(folder / "m", written);
        const auto read = io::read_moments<T>(backend, folder / "m");
        CHECK(read.in_features() == 70);
        CHECK(read.tokens() == 150);
        CHECK(read.has_reference() == written.has_reference());
        CHECK(backend.read(read.gram()) == backend.read(written.gram()));
        if (written.has_reference()) CHECK(backend.read(read.cross()) == backend.read(written.cross()));
        CHECK(read.has_residual_stream() == written.has_residual_stream());
        if (written.has_residual_stream())
            CHECK(backend.read(read.stream_cross()) == backend.read(written.stream_cross()));
        io::write_moments(folder / "again", read);
        CHECK(read_file(folder / "again") == read_file(folder / "m"));
    }

    const auto written = moments_of<TestType>(layer);
    io::write_moments(folder / "m", written);
    const auto read = io::read_moments<T>(backend, folder / "m");
    const auto codes = [&](const MomentsOf<TestType>& moments) {
        return quantize<TestType>(SolverOf<GPTAQ, TestType>(moments, {}, GPTAQ{}), layer.w, IntegerGrid{})
            .codes;
    };
    CHECK(codes(read) == codes(written));
}

TEMPLATE_TEST_CASE("moments go on where they were saved", "[moments]", RESIDUA_TEST_BACKENDS) {
    auto& backend = TestType::get();
    const TemporaryFolder folder;
    const Layer layer = random_layer({.out = 1, .in = 20, .tokens = 64});
    const auto x = upload<TestType>(layer.x);
    auto written = moments_of<TestType>(layer, Inputs::Quantized);
    io::write_moments(folder / "m", written);
    auto read = io::read_moments<typename TestType::Scalar>(backend, folder / "m");
    written.accumulate(x.view());
    read.accumulate(x.view());
    CHECK(read.tokens() == 128);
    CHECK(backend.read(read.gram()) == backend.read(written.gram()));
}

TEMPLATE_TEST_CASE("moments of infinite inputs are for the solver to report", "[moments]",
                   RESIDUA_TEST_BACKENDS) {
    const TemporaryFolder folder;
    Layer layer = random_layer({.out = 1, .in = 4, .tokens = 16});
    layer.x(3, 2) = std::numeric_limits<double>::infinity();
    io::write_moments(folder / "m", moments_of<TestType>(layer));
    const auto read = io::read_moments<typename TestType::Scalar>(TestType::get(), folder / "m");
    const SolverOf<GPTAQ, TestType> solver(read);
    CHECK(quantize<TestType>(solver, layer.w, IntegerGrid{}).status == Status::NonFiniteMoments);
}

TEMPLATE_TEST_CASE("moments that a solver has used up are not written", "[moments]", RESIDUA_TEST_BACKENDS) {
    const TemporaryFolder folder;
    auto moments = moments_of<TestType>(random_layer({.out = 1, .in = 4, .tokens = 16}));
    (void)moments.consume(FactorizationKey{SolverOptions{}});
    CHECK(
        contains(message_of([&] { io::write_moments(folder / "m", moments); }),
                 "write_moments: the moments were used up by a solver, expected moments with their memory"));
    CHECK(folder.is_empty());
}
