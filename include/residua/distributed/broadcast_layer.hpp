#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "residua/distributed/communicator.hpp"
#include "residua/distributed/share.hpp"
#include "residua/solver/quantized_layer.hpp"

namespace residua {

namespace detail {

/// A list becomes that of rank `from`, its length too.
template <class U, Communicator C>
void broadcast_list(C& ranks, std::vector<U>& values, int from) {
    double size[1] = {double(values.size())};
    ranks.broadcast(std::span<double>(size), from);
    values.resize(static_cast<std::size_t>(size[0]));
    ranks.broadcast(std::as_writable_bytes(std::span(values)), from);
}

/// A layer of this shape, whose contents are kept where they have it already.
template <class G, Real T>
void resize(QuantizedLayer<G, T>& layer, Index rows, Index cols, Index groups) {
    layer.rows = rows;
    layer.cols = cols;
    layer.groups = groups;
    layer.codes.resize(static_cast<std::size_t>(rows * cols));
    layer.scales.resize(static_cast<std::size_t>(rows * groups));
    layer.zeros.resize(static_cast<std::size_t>(rows * groups));
}

/// `rows` of a layer become those of rank `from`, and its shape, groups and grid too.
template <class G, Real T, Communicator C>
void broadcast_rows(C& ranks, QuantizedLayer<G, T>& layer, Share rows, int from) {
    static_assert(std::is_trivially_copyable_v<G>);
    double sizes[3] = {double(layer.rows), double(layer.cols), double(layer.groups)};
    ranks.broadcast(std::span<double>(sizes), from);
    if (from != ranks.rank()) resize(layer, Index(sizes[0]), Index(sizes[1]), Index(sizes[2]));
    broadcast_list(ranks, layer.group_index, from);
    ranks.broadcast(std::as_writable_bytes(std::span(&layer.grid, 1)), from);
    const auto part = [&](auto& values, Index width) {
        return std::as_writable_bytes(std::span(values).subspan(
            static_cast<std::size_t>(rows.first * width), static_cast<std::size_t>(rows.count * width)));
    };
    ranks.broadcast(part(layer.codes, layer.cols), from);
    ranks.broadcast(part(layer.scales, layer.groups), from);
    ranks.broadcast(part(layer.zeros, layer.groups), from);
}

}  // namespace detail

/// `layer` of every rank becomes that of rank `from`. Collective.
template <class G, Real T, Communicator C>
void broadcast_layer(C& ranks, QuantizedLayer<G, T>& layer, int from) {
    double rows[1] = {double(layer.rows)};
    ranks.broadcast(std::span<double>(rows), from);
    detail::broadcast_rows(ranks, layer, {0, Index(rows[0])}, from);
}

}  // namespace residua
