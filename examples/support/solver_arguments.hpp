#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "solve_settings.hpp"

/// A choice by name. `target` must outlive `app`'s parsing.
template <class E>
CLI::Option* add_choice(CLI::App& app, const std::string& name, E& target,
                        const std::vector<std::pair<std::string, E>>& choices, const std::string& help) {
    std::vector<std::string> names;
    std::string chosen;
    for (const auto& [text, value] : choices) {
        names.push_back(text);
        if (value == target) chosen = text;
    }
    return app
        .add_option_function<std::string>(
            name,
            [&target, choices](const std::string& text) {
                for (const auto& [known, value] : choices)
                    if (known == text) target = value;
            },
            help)
        ->check(CLI::IsMember(names))
        ->default_str(chosen);
}

/// Throws std::invalid_argument where one of these options was given though it changes nothing, because of `why`.
inline void refuse_idle(const CLI::App& app, bool is_idle, const std::vector<std::string>& options,
                        const std::string& why) {
    for (const std::string& option : options)
        residua::require(!is_idle || app.get_option(option)->count() == 0, option + " is", "given",
                         "not to be: it changes nothing, for " + why);
}

/// Refuses what can be known before any work: values out of a method's range, a method twice, and options of
/// SolverArguments that none of `methods` has a use for.
inline void check_methods(const CLI::App& app, const SolveSettings& settings,
                          const std::vector<std::string>& methods) {
    bool solves = false, has_alpha = false, has_beta = false, has_view = false;
    for (std::size_t i = 0; i < methods.size(); ++i) {
        residua::require(std::find(methods.begin(), methods.begin() + std::ptrdiff_t(i), methods[i]) ==
                             methods.begin() + std::ptrdiff_t(i),
                         "--methods: " + methods[i] + " is given", "twice", "each method once");
        if (methods[i] == "rtn" || methods[i] == "none") continue;
        solves = true;
        with_method(methods[i], settings, [&]<class Method>(const Method& method) {
            method.validate();
            const bool alpha = requires { method.alpha; };
            const bool beta = requires { method.beta; };
            has_alpha = has_alpha || alpha;
            has_beta = has_beta || beta;
            has_view = has_view || beta || Method::residuals == residua::Residuals::OfColumnsBefore;
        });
    }
    refuse_idle(app, !solves,
                {"--order", "--static-groups", "--damping", "--max-dead-inputs", "--on-failure", "--refine",
                 "--block-size", "--group-scales"},
                "no method but rounding was asked for");
    refuse_idle(app, !has_alpha, {"--alpha"}, "only gptaq, rescomp and qep have one");
    refuse_idle(app, !has_beta, {"--beta"}, "only rescomp and gptq+rescomp have one");
    refuse_idle(app, !has_view, {"--residual-view"}, "only gptaq, rescomp and gptq+rescomp look at it");
    const bool per_channel = settings.options.group_size == residua::SolverOptions::per_channel;
    refuse_idle(app, per_channel, {"--static-groups"}, "one scale per output is always fitted beforehand");
    refuse_idle(app, settings.options.static_groups && !per_channel, {"--group-scales"},
                "all grids are fitted before the first column");
}

/// The options of SolveSettings, which must outlive `app`'s parsing.
struct SolverArguments {
    // to see whether they were given
    CLI::Option* scale_type = nullptr;
    CLI::Option* best = nullptr;
    CLI::Option* clip = nullptr;
    CLI::Option* scale_search = nullptr;
    CLI::Option* survivors = nullptr;
    CLI::Option* refine = nullptr;

    SolverArguments(CLI::App& app, SolveSettings& s) {
        using namespace residua;
        best = app.add_flag("--best")->description(
            "all that we recommend: qep with --scale-search loss, --refine 2 and what this program has for "
            "whole models; options beside it override its parts");
        app.add_option("--bits", s.grid.bits, "bits per weight, 2 to 8")->capture_default_str();
        app.add_option("--group-size", s.options.group_size,
                       "columns that share a scale; -1: one scale per output; 0: 128, or the format's")
            ->capture_default_str();
        add_choice<Symmetry>(
            app, "--symmetric", s.grid.symmetry,
            {{"restricted", Symmetry::Restricted}, {"full", Symmetry::FullRange}, {"none", Symmetry::None}},
            "grid around zero");
        clip =
            app.add_flag("--clip,!--no-clip", s.grid.clip.enabled, "search the range that is worth covering");
        scale_search = add_choice<ScaleSearch>(app, "--scale-search", s.grid.clip.search,
                                               {{"norm", ScaleSearch::Norm}, {"loss", ScaleSearch::Loss}},
                                               "what the search of --clip, which this turns on, minimizes");
        survivors =
            app.add_option("--scale-survivors", s.grid.clip.survivors,
                           "candidates of --scale-search loss that go through the recurrence; 50: all")
                ->capture_default_str();
        scale_type = add_choice<ScaleType>(
            app, "--scale-type", s.grid.scale_type,
            {{"f32", ScaleType::Float32}, {"f16", ScaleType::Float16}, {"bf16", ScaleType::BFloat16}},
            "type that scales are stored in (default: f32, or the format's)");
        add_choice<Ordering>(app, "--order", s.options.ordering,
                             {{"natural", Ordering::Natural},
                              {"activation", Ordering::Activation},
                              {"group", Ordering::GroupAware}},
                             "order in which columns are quantized");
        app.add_flag("--static-groups", s.options.static_groups, "fit all grids before the first column");
        app.add_option("--damping", s.options.damping.initial, "part of the mean diagonal added to H")
            ->capture_default_str();
        app.add_option("--max-dead-inputs", s.options.max_dead_inputs,
                       "part of a layer's inputs that may be zero for every token; 1: all")
            ->capture_default_str();
        add_choice<OnFailure>(app, "--on-failure", s.options.on_failure,
                              {{"report", OnFailure::Report}, {"round", OnFailure::RoundToNearest}},
                              "what becomes of a layer that a method cannot solve");
        app.add_option("--alpha", s.alpha, "weight of the input residual (default: 0.25, qep 0.5)");
        app.add_option("--beta", s.beta, "weight of the weight residual (default: 0.25)");
        refine = app.add_option("--refine", s.options.refinement.rounds,
                                "rounds of scale refits and sweeps that lower the objective further")
                     ->capture_default_str();
        app.add_option("--block-size", s.options.block_size, "columns of one sweep")->capture_default_str();
        add_choice<ResidualView>(app, "--residual-view", s.options.published.view,
                                 {{"compensated", ResidualView::Compensated},
                                  {"quantized", ResidualView::Quantized},
                                  {"clamped", ResidualView::Clamped}},
                                 "weights that residuals see");
        add_choice<GroupScales>(app, "--group-scales", s.options.published.scales,
                                {{"current", GroupScales::Current}, {"stale", GroupScales::Stale}},
                                "weights that grids are fitted to");
    }

    /// After parsing: the parts of --best that are settings of a solve, where they were not given. Throws
    /// std::invalid_argument where options have no effect beside the others.
    void complete(SolveSettings& s) const {
        if (clip->count() == 0 && (best->count() > 0 || scale_search->count() > 0))
            s.grid.clip.enabled = true;
        if (best->count() > 0) {
            if (scale_search->count() == 0) s.grid.clip.search = residua::ScaleSearch::Loss;
            if (refine->count() == 0) s.options.refinement.rounds = 2;
        }
        residua::require(scale_search->count() == 0 || s.grid.clip.enabled, "--scale-search: --clip is",
                         "off", "on");
        residua::require(survivors->count() == 0 || s.grid.clip.by_loss(),
                         "--scale-survivors: --scale-search is", s.grid.clip.enabled ? "norm" : "off",
                         "loss");
    }
};

/// The options of SolveSettings that concern the residual stream of a whole model.
class StreamArguments {
  public:
    /// `layers`: those that write to it, for the help. Both must outlive `app`'s parsing.
    StreamArguments(CLI::App& app, SolveSettings& settings, const std::string& layers) : settings_(settings) {
        asked_ = app.add_flag("--residual-stream,!--no-residual-stream");
        asked_->description(layers + " correct what the residual stream carries (default: with qep)");
        alpha_ =
            app.add_option("--stream-alpha", settings.options.stream_alpha, "part of it that they correct")
                ->capture_default_str();
    }

    /// After parsing. Throws std::invalid_argument where options have no effect on any of `methods`.
    void complete(const std::vector<std::string>& methods) const {
        if (asked_->count() > 0) settings_.residual_stream = asked_->as<bool>();
        const bool some = std::any_of(methods.begin(), methods.end(), [&](const std::string& method) {
            return settings_.corrects_stream(method);
        });
        residua::require(some || !settings_.residual_stream.value_or(false),
                         "--residual-stream: --methods is", methods.front(),
                         "one that reads moments, as gptq and qep do");
        residua::require(some || alpha_->count() == 0, "--stream-alpha: --residual-stream is", "off",
                         "on, or --method qep");
    }

  private:
    SolveSettings& settings_;
    CLI::Option* asked_;
    CLI::Option* alpha_;
};
