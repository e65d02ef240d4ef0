#pragma once

#include <string>

// The build reads the version from these three lines.
#define RESIDUA_VERSION_MAJOR 0
#define RESIDUA_VERSION_MINOR 1
#define RESIDUA_VERSION_PATCH 0

namespace residua {

/// Semantic version of the headers in use.
struct Version {
    int major;
    int minor;
    int patch;

    friend constexpr bool operator==(const Version&, const Version&) = default;
};

/// "major.minor.patch"
[[nodiscard]] inline std::string to_string(const Version& v) {
    return std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
}

inline constexpr Version version{RESIDUA_VERSION_MAJOR, RESIDUA_VERSION_MINOR, RESIDUA_VERSION_PATCH};

}  // namespace residua
