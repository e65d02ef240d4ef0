/// vit_quantize, from outside, on the shipped model.

#include <map>
#include <nlohmann/json.hpp>
#include <residua/io.hpp>

#include "catch.hpp"
#include "program.hpp"

TEST_CASE("vit_quantize: every method is measured, the better ones are better", "[programs]") {
    const Folder folder;
    const Output result =
        vit_quantize(folder,
                     "--methods rtn,gptq,rescomp,qep --bits 2 --symmetric none --clip --json --draws 2 "
                     "--calibration-images 100");
    INFO(result.err);
    REQUIRE(result.code == 0);
    const auto rows = nlohmann::json::parse(result.out);
    REQUIRE(rows.size() == 5);
    std::map<std::string, double> loss;
    for (const auto& row : rows) {
        CHECK(row["status"] == "success");
        const bool is_drawn = row["method"] != "full precision" && row["method"] != "rtn";
        CHECK(row["draws"].size() == (is_drawn ? 2u : 1u));
        for (const auto& run : row["draws"]) {
            loss[row["method"]] += run["cross_entropy"].get<double>() / double(row["draws"].size());
            if (row["method"] != "full precision") CHECK(run["layers"].size() == 25);
        }
    }
    CHECK(rows[0]["draws"][0]["top1"].get<double>() == Approx(586.0 / 599));
    CHECK(loss["full precision"] == Approx(0.1059).epsilon(1e-3));
    CHECK(loss["full precision"] < loss["qep"]);
    CHECK(loss["qep"] < loss["gptq"]);
    CHECK(loss["gptq"] < loss["rtn"]);
    // draws are not the same images
    CHECK(rows[2]["draws"][0]["cross_entropy"] != rows[2]["draws"][1]["cross_entropy"]);
}

TEST_CASE("vit_quantize: the output is the model that was measured", "[programs]") {
    const Folder folder;
    const std::string model = folder / "model", data = RESIDUA_EXAMPLE_DATA_DIR "/tiny-vit";
    copy_files(data, model, {"config.json", "calibration.safetensors", "test.safetensors"});
    const std::string run = "--method gptq --bits 4 --calibration-images 60 --json ";
    const Output made = vit_quantize(folder, run + "--output " + model + "/model.safetensors");
    INFO(made.err);
    REQUIRE(made.code == 0);
    const Output again = vit_quantize(folder, run + "--output " + model + "/model.safetensors");
    CHECK(again.code == 2);
    CHECK(contains(again.err, "exists, expected --overwrite"));
    const Output read = vit_quantize(folder, "--method rtn --bits 8 --json --model " + model);
    INFO(read.err);
    REQUIRE(read.code == 0);
    CHECK(
        nlohmann::json::parse(read.out)[0]["draws"][0]["cross_entropy"].get<double>() ==
        Approx(nlohmann::json::parse(made.out)[1]["draws"][0]["cross_entropy"].get<double>()).epsilon(1e-6));
}

TEST_CASE("vit_quantize: rounded activations hurt, and corrections of what they do help", "[programs]") {
    const Folder folder;
    const std::string run =
        "--bits 2 --symmetric none --clip --patch-bits 16 --calibration-images 100 --json --methods "
        "gptq,qep ";
    const Output exact = vit_quantize(folder, run),
                 rounded = vit_quantize(folder, run + "--activation-bits 3");
    INFO(exact.err << rounded.err);
    REQUIRE(exact.code == 0);
    REQUIRE(rounded.code == 0);
    const auto loss = [](const Output& output, std::size_t row) {
        return nlohmann::json::parse(output.out)[row]["draws"][0]["cross_entropy"].get<double>();
    };
    CHECK(loss(exact, 0) == loss(rounded, 0));  // full precision is full precision
    CHECK(loss(exact, 1) < loss(rounded, 1));
    CHECK(loss(rounded, 2) < loss(rounded, 1));
}

TEST_CASE("vit_quantize: what is no such model or fits it not is refused", "[programs]") {
    using namespace residua;
    const Folder folder;
    const std::string data = RESIDUA_EXAMPLE_DATA_DIR "/tiny-vit", model = folder / "model";
    copy_files(data, model, {"config.json", "calibration.safetensors", "test.safetensors"});
    const io::SafetensorsFile source(data + "/model.safetensors");
    const auto refusal = [&](const std::string& arguments) {
        const Output result = vit_quantize(folder, "--method rtn " + arguments);
        CHECK(result.code == 2);
        CHECK(result.out.empty());
        return result.err;
    };
    const auto with = [&](auto change) {
        auto tensors = source.tensors();
        change(tensors);
        io::write_safetensors(model + "/model.safetensors", tensors);
        return refusal("--model " + model);
    };
    CHECK(contains(with([](auto& t) { t.push_back(t[0]), t.back().name = "blocks.0.ls1.gamma"; }),
                   "has a tensor 'blocks.0.ls1.gamma', expected the tensors of timm's"));
    CHECK(contains(with([](auto& t) { std::erase_if(t, [](auto& x) { return x.name == "norm.bias"; }); }),
                   "norm.bias"));
    CHECK(contains(with([](auto& t) {
                       for (auto& x : t)
                           if (x.name == "blocks.5.attn.qkv.weight") x.shape = {48, 144};
                   }),
                   "the shape of blocks.5.attn.qkv.weight is (48, 144), expected (144, 48)"));

    const std::vector<float> pixels(2 * 64, 0.5f);
    const auto images = [&](std::vector<Index> shape, const std::vector<std::int32_t>& labels) {
        io::write_safetensors(folder / "images.safetensors",
                              {io::tensor_of("images", std::move(shape), pixels),
                               io::tensor_of("labels", {Index(labels.size())}, labels)});
        return refusal("--test " + (folder / "images.safetensors"));
    };
    CHECK(contains(images({2, 1, 4, 16}, {0, 1}), "expected images x 1 x 8 x 8 by the model"));
    CHECK(contains(images({2, 1, 8, 8}, {0}), "labels: 1, expected 2, one for each image"));
    CHECK(contains(images({2, 1, 8, 8}, {0, 10}), "a label is 10, expected 0 to 9"));
}
