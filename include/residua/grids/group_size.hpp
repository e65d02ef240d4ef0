#pragma once

#include <concepts>
#include <string>

#include "residua/core/error.hpp"
#include "residua/core/options.hpp"

namespace residua {

/// A grid that only makes sense with groups of so many columns, see requirement 7 of Grid.
template <class G>
concept FixedGroupGrid = requires {
    { G::group_size } -> std::convertible_to<Index>;
};

/// The group size of a solve onto a grid of type G: what is `requested` (SolverOptions::group_size), or for
/// SolverOptions::grid_default the grid's own group size, or 128 where it has none.
///
/// Throws std::invalid_argument for any other size than the grid's own.
template <class G>
[[nodiscard]] constexpr Index resolve_group_size(Index requested) {
    if constexpr (FixedGroupGrid<G>) {
        constexpr Index own = G::group_size;
        static_assert(own >= 1, "a grid's group size is a number of columns");
        if (requested != own && requested != SolverOptions::grid_default)
            reject("SolverOptions: group_size is", requested,
                   std::to_string(own) + ", the only size that this grid has and its default");
        return own;
    } else {
        constexpr Index usual = 128;
        return requested == SolverOptions::grid_default ? usual : requested;
    }
}

namespace detail {

/// How many neighbouring groups a fit takes together: 1, or the family of a TwoLevelGrid.
template <class G>
[[nodiscard]] RESIDUA_HOST_DEVICE constexpr Index family_of(const G& grid) {
    if constexpr (requires { grid.family(); }) {
        return grid.family();
    } else {
        return 1;
    }
}

}  // namespace detail
}  // namespace residua
