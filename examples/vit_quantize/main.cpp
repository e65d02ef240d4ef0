/// Quantizes a vision transformer with every method that is asked for, and measures top-1 accuracy and cross-entropy.
///
///     ../vit                 the model itself
///     ../network             what models of several architectures share
///     settings.cpp           the command line
///     quantize_model.hpp     block after block, layer after layer

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "../support/command_line.hpp"
#include "../support/memory.hpp"
#include "../support/output_file.hpp"
#include "quantize_model.hpp"
#include "settings.hpp"

namespace {

using residua::Index;
using Clock = std::chrono::steady_clock;

/// One quantization of the model, or the model as it is.
struct Run {
    vit::Score score = {};
    double seconds = 0;
    std::vector<LayerRecord> layers = {};
};

/// All draws of one method.
struct Row {
    std::string method;
    std::string status = "success";
    std::vector<Run> runs = {};
};

struct Spread {
    double mean = 0;
    double error = 0;  ///< standard error of the mean; 0 of a single value
};

template <class Value>
Spread spread_of(const std::vector<Run>& runs, Value value) {
    const double count = double(runs.size());
    Spread spread;
    for (const Run& run : runs) spread.mean += value(run) / count;
    double squares = 0;
    for (const Run& run : runs) squares += std::pow(value(run) - spread.mean, 2);
    if (runs.size() > 1) spread.error = std::sqrt(squares / (count - 1) / count);
    return spread;
}

Spread top1_of(const Row& row) {
    return spread_of(row.runs, [](const Run& run) { return 100 * run.score.top1(); });
}
Spread loss_of(const Row& row) {
    return spread_of(row.runs, [](const Run& run) { return run.score.cross_entropy(); });
}
Spread seconds_of(const Row& row) {
    return spread_of(row.runs, [](const Run& run) { return run.seconds; });
}

/// `chosen` of `count` images, at random: the same ones for the same draw on every platform.
std::vector<Index> draw_images(Index count, Index chosen, Index draw) {
    std::vector<Index> images;
    for (Index i = 0; i < count; ++i) images.push_back(i);
    if (chosen == 0) return images;
    std::mt19937_64 random{std::uint64_t(draw)};
    for (Index i = 0; i < chosen; ++i)
        std::swap(images[std::size_t(i)], images[std::size_t(i) + random() % std::uint64_t(count - i)]);
    images.resize(std::size_t(chosen));
    std::ranges::sort(images);
    return images;
}

class Comparison {
  public:
    explicit Comparison(const Settings& settings)
        : settings_(settings),
          executor_(settings.threads > 0 ? residua::Executor(settings.threads) : residua::Executor()),
          model_(vit::read_model(settings.model)),
          calibration_(vit::read_images(settings.calibration, model_.config)),
          test_(vit::read_images(settings.evaluation, model_.config)) {
        residua::require(
            settings.calibration_images <= calibration_.count(), "--calibration-images is",
            settings.calibration_images,
            "at most the " + std::to_string(calibration_.count()) + " of " + settings.calibration.string());
        const vit::Config& c = model_.config;
        std::fprintf(stderr,
                     "%s: %td blocks of %td features, %td images to calibrate on, %td to measure on\n",
                     settings.model.c_str(), c.blocks, c.hidden, images_of_a_draw(), test_.count());
        announce_memory(memory_needed());
    }

    std::vector<Row> run() {
        std::vector<Row> rows{Row{.method = "full precision"}};
        rows[0].runs.push_back({.score = vit::score(vit::Runner(model_.config), model_, test_, executor_)});
        for (const std::string& method : settings_.methods) rows.push_back(quantize(method));
        return rows;
    }

  private:
    Index images_of_a_draw() const {
        return settings_.calibration_images > 0 ? settings_.calibration_images : calibration_.count();
    }

    /// Bytes that the largest moment takes, about: images, three models, two streams of a draw, and a solve of the widest
    /// layer.
    double memory_needed() const {
        const vit::Config& c = model_.config;
        const double widest = double(std::max(c.mlp, 3 * c.hidden));
        const double block = double(c.hidden) * double(4 * c.hidden + 2 * c.mlp);
        const double images = double(calibration_.pixels.size() + test_.pixels.size());
        const double streams = 2 * double(images_of_a_draw() * c.tokens()) * (double(c.hidden) + widest);
        return sizeof(float) * (images + 3 * double(c.blocks) * block + streams + 6 * widest * widest);
    }

    Row quantize(const std::string& method) {
        Row row{.method = method};
        const vit::Runner runner(model_.config, settings_.activations);
        for (Index draw = 0; draw < settings_.draws; ++draw) {
            const auto start = Clock::now();
            vit::Model model = model_;
            Run run;
            try {
                const vit::Images images = calibration_.chosen(
                    draw_images(calibration_.count(), settings_.calibration_images, draw));
                run.layers = ModelQuantizer(settings_, method, executor_).run(model, images);
            } catch (const UnsolvedLayer& error) {
                row.status = error.what();
                row.runs.clear();
                return row;
            }
            run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
            run.score = vit::score(runner, model, test_, executor_);
            row.runs.push_back(std::move(run));
            if (!settings_.output.empty()) vit::write_model(settings_.output, model);
            if (method == "rtn") break;  // which no draw changes
        }
        return row;
    }

    const Settings& settings_;
    residua::Executor executor_;
    vit::Model model_;
    vit::Images calibration_, test_;
};

nlohmann::json to_json(const Row& row) {
    nlohmann::json runs = nlohmann::json::array();
    for (const Run& run : row.runs)
        runs.push_back({{"top1", run.score.top1()},
                        {"cross_entropy", run.score.cross_entropy()},
                        {"seconds", run.seconds},
                        {"layers", to_json(run.layers)}});
    return {{"method", row.method}, {"status", row.status}, {"draws", runs}};
}

void print(const std::vector<Row>& rows, bool json) {
    if (json) {
        nlohmann::json table = nlohmann::json::array();
        for (const Row& row : rows) table.push_back(to_json(row));
        std::cout << table.dump(2) << '\n';
        return;
    }
    std::printf("%-16s %16s %20s %10s  %s\n", "method", "top-1, %", "cross-entropy", "seconds", "status");
    for (const Row& row : rows) {
        const Spread top1 = top1_of(row), loss = loss_of(row);
        if (row.runs.empty()) {
            std::printf("%-16s %16s %20s %10s  %s\n", row.method.c_str(), "", "", "", row.status.c_str());
        } else if (row.runs.size() == 1) {
            std::printf("%-16s %16.2f %20.4f %10.2f  %s\n", row.method.c_str(), top1.mean, loss.mean,
                        seconds_of(row).mean, row.status.c_str());
        } else {
            std::printf("%-16s %8.2f ± %5.2f %11.4f ± %6.4f %10.2f  %s\n", row.method.c_str(), top1.mean,
                        top1.error, loss.mean, loss.error, seconds_of(row).mean, row.status.c_str());
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    Eigen::setNbThreads(1);  // images and blocks run in parallel, not the products within them
    CLI::App app("Quantizes a vision transformer and measures its accuracy.", "vit_quantize");
    return exit_code_of(app, [&] {
        const Settings settings = parse_settings(app, argc, argv);
        const std::vector<Row> rows = Comparison(settings).run();
        print(rows, settings.json);
        finish_stdout();
        const bool failed = std::ranges::any_of(rows, [](const Row& r) { return r.status != "success"; });
        bool degraded = false;
        for (const Row& row : rows)
            for (const Run& run : row.runs) degraded |= announce_degraded(row.method, run.layers);
        return failed || (degraded && !settings.allow_degraded) ? 1 : 0;
    });
}
