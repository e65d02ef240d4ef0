/// quantize_layer --refine, from outside.

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "catch.hpp"
#include "programs/program.hpp"

TEST_CASE("quantize_layer: refined codes are better on the held-back tokens of the shipped layer",
          "[programs][refine]") {
    const Folder folder;
    const auto errors = [&](const std::string& arguments) {
        const Output result = run_program(RESIDUA_QUANTIZE_LAYER, folder, "--json --bits 3 " + arguments);
        REQUIRE(result.code == 0);
        std::map<std::string, double> error;
        for (const auto& row : nlohmann::json::parse(result.out))
            error[row.at("method")] = row.at("relative_output_error");
        return error;
    };
    const auto plain = errors("");
    const auto refined = errors("--refine 2");
    REQUIRE(plain.size() == 7);
    for (const auto& [method, error] : plain) {
        CAPTURE(method);
        if (method == "rtn") {
            CHECK(refined.at(method) == error);
        } else {
            CHECK(refined.at(method) < error);
        }
    }
    CHECK(contains(run_program(RESIDUA_QUANTIZE_LAYER, folder, "--refine -1").err, "rounds is -1"));
}
