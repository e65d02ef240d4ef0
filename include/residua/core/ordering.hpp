#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "residua/core/options.hpp"

namespace residua {

/// One group, or a family of groups that are fitted together: consecutive columns [begin, end) of the order of
/// quantization, stored as group `id` or, of a family, from it on.
struct GroupRange {
    Index begin = 0;
    Index end = 0;
    Index id = 0;
};

namespace detail {

/// 0, 1, ... n - 1.
[[nodiscard]] inline std::vector<Index> natural_order(Index n) {
    std::vector<Index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), Index(0));
    return order;
}

/// Columns of a full group, at most n, for a group size of SolverOptions that resolve_group_size() has seen.
[[nodiscard]] inline Index group_width(Index group_size, Index n) {
    require(group_size != SolverOptions::grid_default, "group_width: group_size is", "grid_default",
            "the size that it stands for");
    return group_size == SolverOptions::per_channel ? n : std::min(group_size, n);
}

/// Positions p in the order of quantization -> original columns. `diagonal` (in_features) is that of H; ties
/// keep their original order.
template <Real T>
[[nodiscard]] std::vector<Index> column_order(std::span<const T> diagonal, Ordering ordering,
                                              Index group_size) {
    const Index n = static_cast<Index>(diagonal.size());
    const auto diag = [&](Index j) { return diagonal[static_cast<std::size_t>(j)]; };
    const auto descending = [&](Index a, Index b) { return diag(a) > diag(b); };

    std::vector<Index> order = natural_order(n);
    if (ordering == Ordering::Activation) std::stable_sort(order.begin(), order.end(), descending);
    if (ordering == Ordering::GroupAware) {
        const Index width = group_width(group_size, n);
        const Index count = (n + width - 1) / width;
        std::vector<double> mean(static_cast<std::size_t>(count));
        std::vector<Index> groups(static_cast<std::size_t>(count));
        for (Index g = 0; g < count; ++g) {
            const auto first = diagonal.begin() + g * width;
            const auto last = diagonal.begin() + std::min(n, (g + 1) * width);
            mean[static_cast<std::size_t>(g)] = std::accumulate(first, last, 0.0) / double(last - first);
            groups[static_cast<std::size_t>(g)] = g;
        }
        std::stable_sort(groups.begin(), groups.end(), [&](Index a, Index b) {
            return mean[static_cast<std::size_t>(a)] > mean[static_cast<std::size_t>(b)];
        });
        auto next = order.begin();
        for (const Index g : groups) {
            const auto first = next;
            for (Index j = g * width; j < std::min(n, (g + 1) * width); ++j) *next++ = j;
            std::stable_sort(first, next, descending);
        }
    }
    return order;
}

/// Which group each column belongs to, and when its grid can be fitted.
struct GroupLayout {
    Index count = 1;
    std::vector<Index> of_position;       ///< (in_features) group of the p-th quantized column
    std::vector<std::int32_t> of_column;  ///< (in_features) group of the original column
    std::vector<GroupRange> ranges;       ///< families fitted when their first column is reached; else empty
    std::vector<GroupRange> groups;  ///< the groups of these, if their columns follow each other; else empty
    std::vector<std::vector<Index>> members;  ///< (count) positions of groups fitted beforehand; else empty
};

/// Columns of one group that follow each other, ascending; `group_of` each column.
[[nodiscard]] inline std::vector<GroupRange> runs_of(std::span<const Index> group_of) {
    std::vector<GroupRange> runs;
    for (std::size_t k = 0; k < group_of.size(); ++k) {
        const Index column = static_cast<Index>(k);
        if (k == 0 || group_of[k] != runs.back().id) runs.push_back({column, column, group_of[k]});
        runs.back().end = column + 1;
    }
    return runs;
}

/// Whether the columns of a group do not all follow each other.
[[nodiscard]] inline bool is_scattered(std::span<const Index> group_of) {
    std::vector<Index> groups;
    for (const GroupRange& run : runs_of(group_of)) groups.push_back(run.id);
    std::sort(groups.begin(), groups.end());
    return std::adjacent_find(groups.begin(), groups.end()) != groups.end();
}

/// `family` neighbouring groups are fitted together.
[[nodiscard]] inline GroupLayout group_layout(std::span<const Index> order, const SolverOptions& options,
                                              Index family = 1) {
    const Index n = static_cast<Index>(order.size());
    const Index width = group_width(options.group_size, n);
    GroupLayout layout;
    layout.count = (n + width - 1) / width;
    layout.of_position.resize(order.size());
    layout.of_column.resize(order.size());

    // Groups of the original order, unless activation order makes groups of what is quantized together.
    const bool by_position = options.ordering == Ordering::Activation && !options.static_groups;
    for (std::size_t p = 0; p < order.size(); ++p) {
        const Index group = (by_position ? static_cast<Index>(p) : order[p]) / width;
        layout.of_position[p] = group;
        layout.of_column[static_cast<std::size_t>(order[p])] = static_cast<std::int32_t>(group);
    }

    if (options.static_groups || options.group_size == SolverOptions::per_channel) {
        layout.members.resize(static_cast<std::size_t>(layout.count));
        for (Index p = 0; p < n; ++p) {
            const Index group = layout.of_position[static_cast<std::size_t>(p)];
            layout.members[static_cast<std::size_t>(group)].push_back(p);
        }
        return layout;
    }
    for (Index p = 0; p < n; ++p) {
        const Index first = layout.of_position[static_cast<std::size_t>(p)] / family * family;
        if (layout.ranges.empty() || layout.ranges.back().id != first) layout.ranges.push_back({p, p, first});
        layout.ranges.back().end = p + 1;
    }
    if (!is_scattered(layout.of_position)) layout.groups = runs_of(layout.of_position);
    return layout;
}

}  // namespace detail
}  // namespace residua
