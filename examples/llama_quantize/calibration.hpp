#pragma once

#include <array>
#include <future>
#include <memory>
#include <residua/core/report.hpp>
#include <residua/distributed/share.hpp>
#include <residua/solver/final_norm.hpp>
#include <string>

#include "../llama/model.hpp"
#include "output.hpp"

/// The calibration windows on their way through two models at once, on some device: the full-precision one and the one
/// that is being quantized. Both stop where linear layers read, so that each layer sees what its quantized
/// predecessors make of the tokens.
///
/// For each block: enter(); for each input, for layers that read the same rows there, accumulate() and solve() or put() each
/// of them, then advance(); at last leave().
class Calibration {
  public:
    using Index = residua::Index;

    static constexpr Index sample_windows = 8;

    /// How the windows of all ranks are cut into segments, and which of them are this rank's.
    struct Segments {
        Index total = 1;
        residua::Share mine = {0, 1};
    };

    /// Which of `windows` windows are this rank's, in segments, of which the first `references` go through the
    /// full-precision model too.
    struct Selection {
        std::vector<Index> windows = {};
        std::vector<Index> ends = {};  ///< of each segment here, in `windows`
        Index references = 0;          ///< of those here
        Index samples = 0;             ///< of those here, that output_errors() looks at

        Selection(Index count, Index reference_count, const Segments& segments) {
            for (Index s = segments.mine.first; s < segments.mine.end(); ++s) {
                const residua::Share part = residua::share_of(count, s, segments.total);
                for (Index i = part.first; i < part.end(); ++i) {
                    windows.push_back(i);
                    references += i < reference_count;
                    samples += i < sample_windows;
                }
                ends.push_back(Index(windows.size()));
            }
        }
    };

    /// Linear layers of a block that read the same rows.
    struct Readers {
        llama::Input input;
        Index expert =
            llama::every_token;  ///< whose tokens they read: those that the quantized model sends to it
    };

    /// What is accumulated besides the inputs, for which all windows must go through both models.
    struct Kinds {
        bool reference = false;  ///< inputs of the full-precision model
        bool stream = false;     ///< residual streams of both
    };

    virtual ~Calibration() = default;

    virtual const llama::Config& config() const = 0;

    /// To the first input of a block.
    virtual void enter(Index block) = 0;

    /// Sums up the tokens of this rank that the layers read, and says how many these are.
    virtual Index accumulate(const Readers& readers, const Kinds& kinds) = 0;

    /// Quantizes a layer of the block by one of method_names(), together with all ranks; the quantized model has it from
    /// then on.
    virtual residua::Report solve(const std::string& method, std::size_t layer) = 0;

    /// Gives a layer to the quantized model that was quantized before.
    virtual void put(std::size_t layer, StoredLayer quantized) = 0;

    /// |Q x - W x_fp|^2 and |W x_fp|^2 of a layer on those of the first `sample_windows` windows that are this rank's;
    /// zeros where no token of these reaches the layer.
    virtual std::array<double, 2> output_errors(std::size_t layer) = 0;

    /// Through the layers that read `input`, to the next one or out of the block.
    virtual void advance(llama::Input input) = 0;

    /// The block's quantized layers, which may be on their way to host memory.
    virtual std::shared_future<std::shared_ptr<const QuantizedBlock>> leave() = 0;

    /// Out of the last block and through the last norm, whose weights are fitted to what the blocks became, together
    /// with all ranks.
    virtual residua::NormGains<float> fit_final_norm() = 0;
};
