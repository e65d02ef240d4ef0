#pragma once

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

namespace residua {

/// Items [first, first + count) of a list.
struct Share {
    Index first = 0;
    Index count = 0;

    Index end() const { return first + count; }
    friend bool operator==(const Share&, const Share&) = default;
};

/// Part number `part` of a list that is cut into `parts` runs of neighbours, as equal as can be.
[[nodiscard]] inline Share share_of(Index items, Index part, Index parts) {
    require(items >= 0, "share_of: items is", items, "at least 0");
    require(parts >= 1, "share_of: parts is", parts, "at least 1");
    require(part >= 0 && part < parts, "share_of: part is", part, "in [0, parts)");
    const Index first = items / parts * part + items % parts * part / parts;
    const Index end = items / parts * (part + 1) + items % parts * (part + 1) / parts;
    return {first, end - first};
}

}  // namespace residua
