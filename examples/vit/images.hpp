#pragma once

#include "model.hpp"

namespace vit {

/// Images as the model sees them, normalized, and what they show.
struct Images {
    Rows pixels;                       ///< (images, channels * height * width)
    std::vector<std::int32_t> labels;  ///< classes

    Index count() const { return pixels.rows(); }

    Images chosen(std::span<const Index> which) const {
        Images some{.pixels = Rows(Index(which.size()), pixels.cols()), .labels = {}};
        for (std::size_t i = 0; i < which.size(); ++i) {
            some.pixels.row(Index(i)) = pixels.row(which[i]);
            some.labels.push_back(labels[std::size_t(which[i])]);
        }
        return some;
    }
};

/// A safetensors file with `images` (images, channels, height, width) of any type of numbers and `labels`, I32. Throws
/// std::invalid_argument where they do not fit the model, or there is none.
inline Images read_images(const std::filesystem::path& path, const Config& c) {
    const residua::io::SafetensorsFile file(path);
    const auto& shape = file.info("images").shape;
    const bool fits = shape.size() == 4 && shape[0] >= 1 && shape[1] == c.channels && shape[2] == c.image() &&
                      shape[3] == c.image();
    residua::require(fits, path.string() + ": elements of images:", file.info("images").elements(),
                     "images x " + std::to_string(c.channels) + " x " + std::to_string(c.image()) + " x " +
                         std::to_string(c.image()) + " by the model");
    Images images{.pixels = Rows(shape[0], c.pixels()), .labels = file.read<std::int32_t>("labels")};
    file.read<float>("images", std::span(images.pixels.data(), std::size_t(images.pixels.size())));
    residua::require(Index(images.labels.size()) == images.count(),
                     path.string() + ": labels:", images.labels.size(),
                     std::to_string(images.count()) + ", one for each image");
    for (const std::int32_t label : images.labels)
        residua::require(label >= 0 && label < c.classes, path.string() + ": a label is", label,
                         "0 to " + std::to_string(c.classes - 1) + " (the classes)");
    return images;
}

/// im2col of the patch embedding, a convolution without overlap: one row (channels, patch, patch) for each patch, from the
/// top left on, of one image.
inline Rows patches_of(const Config& c, const float* image) {
    Rows patches(c.side * c.side, c.patch_pixels());
    for (Index row = 0; row < c.side; ++row) {
        for (Index col = 0; col < c.side; ++col) {
            float* target = patches.row(row * c.side + col).data();
            for (Index channel = 0; channel < c.channels; ++channel) {
                for (Index y = 0; y < c.patch; ++y) {
                    const float* source =
                        image + (channel * c.image() + row * c.patch + y) * c.image() + col * c.patch;
                    target = std::copy_n(source, c.patch, target);
                }
            }
        }
    }
    return patches;
}

}  // namespace vit
