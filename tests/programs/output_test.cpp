/// What the programs write over, go on with and share: nothing that another run, model or process needs.

#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <residua/io.hpp>
#include <support/folder_lock.hpp>

#include "catch.hpp"
#include "programs/program.hpp"

using namespace residua;

namespace {

const std::string shipped_model = RESIDUA_EXAMPLE_DATA_DIR "/tiny-llama";

/// Rounding takes no solves, and what is written does not depend on the method.
const std::string quick = " --window 64 --calibration-windows 2 --eval-windows 1 --no-baseline --method rtn ";

Output quantize_quickly(const Folder& folder, const std::string& arguments) {
    return llama_quantize(folder, quick + arguments);
}

void write_text(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

/// What a run leaves that was killed in the third block.
void keep_two_blocks(const std::string& whole, const std::string& killed) {
    fs::remove_all(killed);
    copy_files(whole, killed, {"model-00001-of-00007.safetensors", "model-00002-of-00007.safetensors"});
}

std::string refusal_in(const Output& result) {
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    return result.err;
}

}  // namespace

TEST_CASE("llama_quantize: a run goes on with what the same run left, and with nothing else", "[programs]") {
    const Folder folder;
    const std::string whole = folder / "whole", killed = folder / "killed", model = folder / "model";
    REQUIRE(quantize_quickly(folder, "--output " + whole).code == 0);
    CHECK_FALSE(fs::exists(whole + "/" + FolderLock::name));
    const std::string resumed = "--resume --output " + killed + " ";
    const std::string shard = killed + "/model-00002-of-00007.safetensors";
    keep_two_blocks(whole, killed);

    // an option that changes bytes of the output though no code
    const std::string format = refusal_in(quantize_quickly(folder, resumed + "--format gptq-v1"));
    CHECK(contains(format, "was made with {\"--format\":\"gptq-v2\"}, expected {\"--format\":\"gptq-v1\"}"));

    // another model of the same name and size
    copy_files(shipped_model, model, {"config.json", "calibration.txt", "eval.txt", "model.safetensors"});
    std::string weights = content(model + "/model.safetensors");
    weights[weights.size() / 2] = char(weights[weights.size() / 2] ^ 1);
    write_text(model + "/model.safetensors", weights);
    CHECK(contains(refusal_in(quantize_quickly(folder, resumed + "--model " + model)),
                   "was made with {\"model\":"));

    // one bit of a finished shard
    const std::string good = content(shard);
    std::string bad = good;
    bad[bad.size() / 2] = char(bad[bad.size() / 2] ^ 16);
    write_text(shard, bad);
    CHECK(contains(refusal_in(quantize_quickly(folder, resumed)), "the checksum is"));
    write_text(shard, good);

    // files of another model that would be replaced at the end
    write_text(killed + "/config.json", "{}\n");
    CHECK(
        contains(refusal_in(quantize_quickly(folder, resumed)), "config.json' is not what this run writes"));
    CHECK(content(killed + "/config.json") == "{}\n");
    fs::remove(killed + "/config.json");
    write_text(killed + "/model.safetensors.index.json", "{}\n");
    CHECK(contains(refusal_in(quantize_quickly(folder, resumed)), "index.json' is not what this run writes"));
    fs::remove(killed + "/model.safetensors.index.json");

    // what a write was interrupted in goes, a finished model is as good as a killed run
    write_text(killed + "/.residua-1234.tmp", "half a shard");
    for (int i = 0; i < 2; ++i) {
        REQUIRE(quantize_quickly(folder, resumed).code == 0);
        for (const auto& entry : fs::directory_iterator(whole)) {
            const std::string name = entry.path().filename();
            CAPTURE(name);
            CHECK(content(killed + "/" + name) == content(whole + "/" + name));
        }
        CHECK_FALSE(fs::exists(killed + "/.residua-1234.tmp"));
    }
}

TEST_CASE("llama_quantize: one process at a time writes into a folder", "[programs]") {
    const Folder folder;
    const std::string output = folder / "out";
    fs::create_directories(output);
    const std::string lock = output + "/" + FolderLock::name;
    {
        const FolderLock held(output);
        const std::string message = refusal_in(quantize_quickly(folder, "--output " + output));
        CHECK(contains(message, "is in use by '{\"host\":\"" + FolderLock::host() +
                                    "\",\"pid\":" + std::to_string(::getpid()) + "}'"));
        held.check();
        fs::remove(lock);
        CHECK_THROWS_AS(held.check(), std::invalid_argument);
    }
    // an owner on another host may still be there, one on this host is gone if its lock is
    write_text(lock, "{\"host\":\"elsewhere\",\"pid\":1}\n");
    CHECK(contains(refusal_in(quantize_quickly(folder, "--output " + output)), "elsewhere"));
    write_text(lock, "not a lock\n");
    CHECK(contains(refusal_in(quantize_quickly(folder, "--output " + output)), "not a lock"));
    write_text(lock, nlohmann::json{{"host", FolderLock::host()}, {"pid", 1}}.dump() + "\n");
    CHECK(quantize_quickly(folder, "--output " + output).code == 0);
    CHECK_FALSE(fs::exists(lock));
}

TEST_CASE("llama_quantize: the source and other models are not written over", "[programs]") {
    const Folder folder;
    const std::string model = folder / "model", link = folder / "link", output = folder / "out";
    copy_files(shipped_model, model, {"config.json", "calibration.txt", "eval.txt", "model.safetensors"});
    fs::create_directory_symlink(model, link);
    for (const std::string& place : {model, link, model + "/q", link + "/../model/deeper/still"}) {
        CAPTURE(place);
        CHECK(contains(refusal_in(quantize_quickly(folder, "--model " + model + " --output " + place)),
                       "is --model, or a folder in it"));
    }
    CHECK(content(model + "/config.json") == content(shipped_model + "/config.json"));
    CHECK_FALSE(fs::exists(model + "/q"));

    const auto try_to_replace = [&](const std::string& arguments) {
        return refusal_in(quantize_quickly(folder, "--output " + output + " " + arguments));
    };
    fs::create_directories(output);
    write_text(output + "/config.json", "mine\n");
    CHECK(contains(try_to_replace(""), "config.json' exists, expected --resume, --overwrite"));
    CHECK(content(output + "/config.json") == "mine\n");
    write_text(output + "/model.safetensors", "mine too\n");
    CHECK(contains(try_to_replace("--overwrite"), "would be taken for a part of the model"));
    fs::remove(output + "/model.safetensors");
    fs::remove(output + "/config.json");
    REQUIRE(::mkfifo((output + "/config.json").c_str(), 0600) == 0);
    CHECK(contains(try_to_replace("--overwrite"), "is no regular file"));
    CHECK(fs::is_fifo(output + "/config.json"));
    fs::remove(output + "/config.json");

    write_text(output + "/config.json", "mine\n");
    write_text(output + "/model-00001-of-00007.safetensors", "of another run\n");
    REQUIRE(quantize_quickly(folder, "--overwrite --output " + output).code == 0);
    CHECK(io::SafetensorsCheckpoint(output).contains("model.layers.0.mlp.down_proj.qweight"));
}

TEST_CASE("llama_quantize: where the disk ends, the run does, and goes on where there is room",
          "[programs]") {
    const Folder folder;
    const std::string output = folder / "out";
    const std::string limited =
        "(trap '' XFSZ; ulimit -f 200; " RESIDUA_LLAMA_QUANTIZE;  // of 512 or 1024 bytes
    const Output full = run_program(limited, folder, quick + "--output " + output + ")");
    CHECK(full.code == 2);
    CHECK(full.out.empty());
    CHECK(contains(full.err, "model-00001-of-00007.safetensors': File too large"));
    CHECK(fs::is_empty(output));
    CHECK(quantize_quickly(folder, "--resume --output " + output).code == 0);
}

TEST_CASE("programs never replace what they read", "[programs]") {
    const Folder folder;
    const std::string model = folder / "model", layer = folder / "layer.safetensors", link = folder / "link";
    copy_files(shipped_model, model, {"config.json", "calibration.txt", "eval.txt", "model.safetensors"});
    fs::copy_file(RESIDUA_EXAMPLE_DATA_DIR "/layer.safetensors", layer);
    fs::create_hard_link(model + "/model.safetensors", link);
    const std::string of_model = "--overwrite --model " + model;
    for (const std::string& arguments :
         {of_model + " --format gguf-q4_0 --output " + model + "/model.safetensors",
          of_model + " --format gguf-q4_0 --output " + link, of_model + " --plot " + model + "/config.json"})
        CHECK(contains(refusal_in(quantize_quickly(folder, arguments)), "is read by this run"));
    CHECK(
        contains(refusal_in(run_program(RESIDUA_QUANTIZE_LAYER, folder,
                                        "--method rtn --overwrite --input " + layer + " --output " + layer)),
                 "--output: '" + layer + "' is read by this run, expected another file"));
    copy_files(RESIDUA_EXAMPLE_DATA_DIR "/tiny-vit", folder / "vit",
               {"config.json", "model.safetensors", "calibration.safetensors", "test.safetensors"});
    CHECK(contains(refusal_in(run_program(RESIDUA_VIT_QUANTIZE, folder,
                                          "--method rtn --overwrite --model " + (folder / "vit") +
                                              " --output " + (folder / "vit/model.safetensors"))),
                   "is read by this run"));
    CHECK(contains(refusal_in(run_program(RESIDUA_INSPECT, folder,
                                          layer + " --overwrite --dequantize x --output " + layer)),
                   "is read by this run"));
    CHECK(content(layer) == content(RESIDUA_EXAMPLE_DATA_DIR "/layer.safetensors"));
    CHECK(content(link) == content(shipped_model + "/model.safetensors"));
}

TEST_CASE("quantize_layer: an output is a new file unless --overwrite", "[programs]") {
    const Folder folder;
    const std::string output = folder / "q.safetensors";
    const auto run = [&](const std::string& path, const std::string& arguments) {
        return run_program(RESIDUA_QUANTIZE_LAYER, folder, "--method rtn --output " + path + " " + arguments);
    };
    write_text(output, "mine\n");
    CHECK(contains(refusal_in(run(output, "")),
                   "q.safetensors' exists, expected --overwrite, or another name"));
    CHECK(content(output) == "mine\n");
    CHECK(run(output, "--overwrite").code == 0);
    CHECK(io::SafetensorsFile(output).contains("codes"));

    fs::create_symlink(output, folder / "link");
    CHECK(contains(refusal_in(run(folder / "link", "--overwrite")), "is no regular file"));
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK(contains(refusal_in(run(folder / "pipe", "--overwrite")), "is no regular file"));
    CHECK(contains(refusal_in(run(folder / "nowhere/q", "")),
                   "nowhere' is missing, expected a folder to write in"));
    CHECK(contains(refusal_in(run(folder.path.string(), "")), "is a folder"));
}
