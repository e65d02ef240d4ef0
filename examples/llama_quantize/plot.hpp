#pragma once

#include <filesystem>
#include <string>
#include <vector>

/// One line of a chart: values > 0 at 0, 1, 2, ...
struct Series {
    std::string name;
    std::vector<double> values;
};

/// Writes lines over a logarithmic axis as SVG. `ticks` name every `ticks_apart`-th position. Atomic.
void write_line_chart(const std::filesystem::path& path, const std::string& title, const std::string& y_label,
                      const std::vector<Series>& series, const std::vector<std::string>& ticks,
                      int ticks_apart);
