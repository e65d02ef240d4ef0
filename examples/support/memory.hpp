#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

namespace detail {

/// The number behind `name` in a file of lines "name number ...", or the first number for no name.
inline std::optional<double> number_in(const std::string& path, const std::string& name = "") {
    std::ifstream file(path);
    std::string word;
    double value = 0;
    if (name.empty()) return file >> value ? std::optional(value) : std::nullopt;
    while (file >> word) {
        if (word == name && file >> value) return value;
    }
    return {};
}

}  // namespace detail

/// Bytes that this process may still take, by what Linux says of the machine, of the control group and of the
/// limit on address space. Infinite where it says nothing.
inline double available_memory() {
    using detail::number_in;
    double available = std::numeric_limits<double>::infinity();
    if (const auto kib = number_in("/proc/meminfo", "MemAvailable:"))
        available = 1024 * (*kib + number_in("/proc/meminfo", "SwapFree:").value_or(0));
    const std::string group = "/sys/fs/cgroup/memory.";
    if (const auto limit = number_in(group + "max")) {
        const double reclaimable = number_in(group + "stat", "inactive_file").value_or(0);
        available = std::min(available, *limit - number_in(group + "current").value_or(0) + reclaimable);
    }
    rlimit limit = {};
    if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        const double pages = number_in("/proc/self/statm").value_or(0);
        available = std::min(available, double(limit.rlim_cur) - pages * double(::sysconf(_SC_PAGESIZE)));
    }
    return std::max(available, 0.0);
}

/// Says how much memory the work will take, before it begins. Throws std::runtime_error where there is less.
inline void announce_memory(double bytes) {
    constexpr double gib = 1 << 30;
    char text[96];
    const double available = available_memory();
    std::snprintf(text, sizeof text, "needs about %.3g GiB of memory, %.3g GiB available", bytes / gib,
                  available / gib);
    if (bytes > available) throw std::runtime_error("residua: " + std::string(text));
    std::fprintf(stderr, "%s\n", text);
}
