#pragma once

#include <filesystem>
#include <string>
#include <vector>

/// One line of a chart: values > 0 at 0, 1, 2, ...
struct Series {
    std::string name;
    std::vector<double> values;
};

/// A name on the horizontal axis.
struct Tick {
    std::size_t position;  ///< of the value that it stands below
    std::string name;
};

/// Writes lines over a logarithmic axis as SVG. Atomic.
void write_line_chart(const std::filesystem::path& path, const std::string& title, const std::string& y_label,
                      const std::vector<Series>& series, const std::vector<Tick>& ticks);
