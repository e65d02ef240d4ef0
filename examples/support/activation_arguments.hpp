#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <residua/transform/activation_quantizer.hpp>
#include <string>

/// The options of one activation quantizer, all but the bits as the quantizer has them; 16 bits: none.
struct ActivationArguments {
    int bits = 16;
    residua::ActivationQuantizer quantizer{.clip_ratio = 0.9};
    bool is_symmetric = false;

    /// --activation-bits and what goes with it: of the linear layers' inputs. This must outlive `app`'s parsing.
    void add_to(CLI::App& app) {
        app.add_option("--activation-bits", bits, "bits of the linear layers' inputs; 16: as they are")
            ->capture_default_str();
        app.add_option("--activation-group-size", quantizer.group_size,
                       "features that share a scale; -1: all")
            ->capture_default_str();
        app.add_flag("--activation-symmetric", is_symmetric, "zero in the middle of the range");
        app.add_option("--activation-clip", quantizer.clip_ratio, "part of the range that is covered")
            ->capture_default_str();
    }

    /// After parsing. Throws std::invalid_argument for values out of range; `option` is that of the bits.
    std::optional<residua::ActivationQuantizer> get(const char* option) {
        residua::require(bits == 16 || (bits >= 2 && bits <= 8), std::string(option) + " is", bits,
                         "2 to 8, or 16");
        if (bits == 16) return {};
        quantizer.bits = bits;
        if (is_symmetric) quantizer.symmetry = residua::Symmetry::Restricted;
        quantizer.validate();
        return quantizer;
    }
};
