/// The vision transformer's runner against PyTorch's logits, and what becomes of its convolution against the definition.

#include <residua/backends/eigen.hpp>
#include <residua/solver/moments.hpp>
#include <vit/runner.hpp>

#include "catch.hpp"

namespace {

const std::string vit_folder = RESIDUA_EXAMPLE_DATA_DIR "/tiny-vit";

const vit::Model& shipped_vit() {
    static const vit::Model model = vit::read_model(vit_folder);
    return model;
}

const vit::Images& shipped_images() {
    static const vit::Images images =
        vit::read_images(vit_folder + "/test.safetensors", shipped_vit().config);
    return images;
}

}  // namespace

TEST_CASE("vit: logits of the shipped model are those of PyTorch", "[vit]") {
    constexpr float tolerance = 1e-4f;  // PyTorch computes in float too, in another order; logits are up to 9
    const residua::io::SafetensorsFile golden(vit_folder + "/test.safetensors");
    const auto wanted = golden.read<float>("logits");
    const vit::Model& model = shipped_vit();
    const vit::Images& images = shipped_images();
    REQUIRE(residua::Index(wanted.size()) == images.count() * model.config.classes);
    const vit::Runner runner(model.config);
    float worst = 0;
    for (residua::Index i = 0; i < images.count(); ++i) {
        const vit::Vector found = runner.logits(model, images.pixels.row(i).data());
        const Eigen::Map<const vit::Vector> expected(wanted.data() + i * model.config.classes,
                                                     model.config.classes);
        worst = std::max(worst, (found - expected).cwiseAbs().maxCoeff());
    }
    CHECK(worst < tolerance);

    const vit::Score score = vit::score(runner, model, images, residua::Executor());
    CHECK(score.images == 599);
    CHECK(score.correct == 586);
    CHECK(score.cross_entropy() == Approx(0.1059).epsilon(1e-3));
}

TEST_CASE(
    "vit: the convolution of patches is a product with its im2col rows, whose moments are those of the "
    "definition",
    "[vit]") {
    constexpr double tolerance = 1e-5;  // sums of some hundred products in float
    vit::Config c{
        .channels = 2, .patch = 3, .side = 4, .hidden = 5, .mlp = 1, .blocks = 0, .heads = 1, .classes = 1};
    std::vector<float> image(std::size_t(c.pixels()));
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = std::sin(float(7 * i % 101));
    vit::Rows kernel(c.hidden, c.patch_pixels());
    for (residua::Index i = 0; i < kernel.size(); ++i) kernel.data()[i] = std::cos(float(i));
    const auto pixel = [&](residua::Index channel, residua::Index y, residua::Index x) {
        return double(image[std::size_t((channel * c.image() + y) * c.image() + x)]);
    };

    const vit::Rows patches = vit::patches_of(c, image.data());
    const vit::Rows found = network::Linear{kernel}(patches);
    residua::EigenBackend backend;
    residua::Moments<float, residua::EigenBackend> moments(backend, c.patch_pixels());
    moments.accumulate(vit::view(patches));
    const residua::MatrixView<const float> h = moments.gram();

    double worst = 0;
    const residua::Index p = c.patch;
    for (residua::Index token = 0; token < c.side * c.side; ++token) {
        const residua::Index top = token / c.side * p, left = token % c.side * p;
        for (residua::Index out = 0; out < c.hidden; ++out) {
            double sum = 0;
            for (residua::Index k = 0; k < c.patch_pixels(); ++k)
                sum += double(kernel(out, k)) * pixel(k / (p * p), top + k / p % p, left + k % p);
            worst = std::max(worst, std::abs(sum - double(found(token, out))));
        }
    }
    CHECK(worst < tolerance);
    worst = 0;
    for (residua::Index a = 0; a < c.patch_pixels(); ++a) {
        for (residua::Index b = a; b < c.patch_pixels(); ++b) {
            double sum = 0;
            for (residua::Index row = 0; row < c.side; ++row) {
                for (residua::Index col = 0; col < c.side; ++col)
                    sum += pixel(a / (p * p), row * p + a / p % p, col * p + a % p) *
                           pixel(b / (p * p), row * p + b / p % p, col * p + b % p);
            }
            worst = std::max(worst, std::abs(sum - double(h(a, b))));
        }
    }
    CHECK(worst < tolerance);
}
