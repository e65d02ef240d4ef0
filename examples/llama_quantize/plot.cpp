#include "plot.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <residua/io/atomic_file.hpp>
#include <span>

namespace {

constexpr double width = 860, height = 460, left = 74, right = 150, top = 44, bottom = 52;
constexpr std::array colours{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};

template <class... Values>
std::string format(const char* pattern, Values... values) {
    char text[512];
    std::snprintf(text, sizeof text, pattern, values...);
    return text;
}

std::string escape(const std::string& text) {
    std::string safe;
    for (const char c : text) safe += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    return safe;
}

}  // namespace

void write_line_chart(const std::filesystem::path& path, const std::string& title, const std::string& y_label,
                      const std::vector<Series>& series, const std::vector<Tick>& ticks) {
    double low = HUGE_VAL, high = 0;
    std::size_t count = 2;
    for (const Series& line : series) {
        count = std::max(count, line.values.size());
        for (const double value : line.values) {
            if (!(value > 0) || !std::isfinite(value)) continue;
            low = std::min(low, value);
            high = std::max(high, value);
        }
    }
    if (!(high > 0)) low = 0.1, high = 1;
    low = std::log10(low) - 0.05, high = std::log10(high) + 0.05;
    const auto x = [&](double i) { return left + (width - left - right) * i / double(count - 1); };
    const auto y = [&](double value) {
        return top + (height - top - bottom) * (high - std::log10(value)) / (high - low);
    };

    std::string svg = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n<rect width=\"%g\" height=\"%g\" fill=\"white\"/>\n",
        width, height, width, height);
    svg += format("<text x=\"%g\" y=\"24\" font-size=\"15\">", left) + escape(title) + "</text>\n";
    svg += format("<text transform=\"translate(18 %g) rotate(-90)\" text-anchor=\"middle\">", height / 2) +
           escape(y_label) + "</text>\n";
    for (int decade = int(std::floor(low)); decade <= int(std::ceil(high)); ++decade) {
        for (const double step : {1.0, 2.0, 5.0}) {
            const double value = step * std::pow(10.0, decade);
            if (std::log10(value) < low || std::log10(value) > high) continue;
            svg += format(
                "<path d=\"M%g %.1fH%g\" stroke=\"#ddd\"/><text x=\"%g\" y=\"%.1f\" "
                "text-anchor=\"end\">%g</text>\n",
                left, y(value), width - right, left - 8, y(value) + 4, value);
        }
    }
    for (const Tick& tick : ticks) {
        const double at = x(double(tick.position));
        svg += format("<path d=\"M%.1f %gV%g\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%g\">", at, top,
                      height - bottom, at + 3, height - bottom + 18) +
               escape(tick.name) + "</text>\n";
    }
    for (std::size_t s = 0; s < series.size(); ++s) {
        const char* colour = colours[s % colours.size()];
        std::string points;
        for (std::size_t i = 0; i < series[s].values.size(); ++i) {
            const double value = series[s].values[i];
            if (value > 0 && std::isfinite(value)) points += format("%.1f,%.1f ", x(double(i)), y(value));
        }
        svg += format("<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"", colour) + points +
               "\"/>\n";
        const double legend = top + 8 + 20 * double(s);
        svg += format("<path d=\"M%g %gh22\" stroke-width=\"3\" stroke=\"%s\"/><text x=\"%g\" y=\"%g\">",
                      width - right + 12, legend, colour, width - right + 40, legend + 4) +
               escape(series[s].name) + "</text>\n";
    }
    svg += "</svg>\n";
    residua::io::AtomicFile file(path);
    file.append(std::as_bytes(std::span(svg)));
    file.commit();
}
