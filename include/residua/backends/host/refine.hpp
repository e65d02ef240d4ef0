#pragma once

#include <algorithm>
#include <vector>

#include "residua/backends/host/lanes.hpp"
#include "residua/backends/refine_block.hpp"
#include "residua/backends/refit.hpp"

namespace residua::detail {

/// A refinement pass over one block of columns for a tile of output rows. With b_i what column i of E has
/// changed by since the block was entered, the gradient of a column is g_k + sum_i H_ki b_i.
template <Real T, Grid<T> G>
class RefineTile {
  public:
    static constexpr Index L = lanes::width<T>;

    RefineTile(const G& grid, const RefineBlock<T>& block)
        : grid_(grid), b_(block), width_(block.end - block.begin) {
        const auto size = static_cast<std::size_t>(width_ * L);
        gradient_.resize(size);
        change_.resize(size);
        slope_.resize(size);
        curved_.resize(size);
        moved_.resize(size);
        codes_.resize(size);
    }

    /// Output rows [first, first + active), active <= L.
    void run(Index first, Index active) {
        first_ = first;
        active_ = active;
        load();
        if (b_.refits.empty()) {
            sweep(0, width_);
        } else {
            const Index count = static_cast<Index>(b_.refits.size());
            for (Index i = 0; i < count; ++i) {
                const GroupRange& group =
                    b_.refits[static_cast<std::size_t>(b_.backward ? count - 1 - i : i)];
                visit(group.begin - b_.begin, group.end - b_.begin, group.id);
            }
        }
        store();
    }

  private:
    static constexpr bool refits = RefittableGrid<G, T> || TwoLevelGrid<G, T>;

    T* at(std::vector<T>& lanes, Index k) { return lanes.data() + k * L; }

    void load() {
        for (Index k = 0; k < width_; ++k) {
            T fresh[L];
            T outside[L];
            T* gradient = at(gradient_, k);
            lanes::load<L>(b_.fresh.row(k) + first_, active_, fresh);
            lanes::load<L>(b_.outside.row(b_.begin + k) + first_, active_, outside);
            for (Index l = 0; l < L; ++l) gradient[l] = fresh[l] + outside[l];
            std::copy_n(fresh, active_, b_.outside.row(b_.begin + k) + first_);
            const Code* codes = b_.codes.row(b_.begin + k) + first_;
            int* code = codes_.data() + k * L;
            std::fill_n(code, L, 0);
            std::copy_n(codes, active_, code);
        }
        for (Index l = 0; l < L; ++l) {
            lowered_[l] = T(0);
            changed_[l] = 0;
            open_[l] = l < active_ && b_.tally(Tally::Finished, first_ + l) == 0;
        }
    }

    /// Columns [from, to) are one group: its parameters, then its codes.
    void visit(Index from, Index to, Index group) {
        const Index visited = b_.backward ? to : 0;
        const Index count = b_.backward ? width_ - to : from;
        for (Index k = from; k < to; ++k) add_changes(k, visited, count, at(gradient_, k));
        if constexpr (refits) {
            std::fill(at(moved_, from), at(moved_, to), T(0));
            refit(from, to, group);
        }
        sweep(from, to);
        if constexpr (refits) {
            for (Index k = from; k < to; ++k) {
                for (Index l = 0; l < L; ++l) at(change_, k)[l] -= at(moved_, k)[l];
            }
        }
    }

    /// sum += sum_i H_ki b_i over `count` columns from `from`.
    void add_changes(Index k, Index from, Index count, T* sum) {
        lanes::accumulate<L>(b_.gram.row(k) + from, change_.data() + from * L, count, sum);
    }

    void load_params(Index group, T* scale, T* zero) const {
        lanes::load<L>(b_.scales.row(group) + first_, active_, scale);
        lanes::load<L>(b_.zeros.row(group) + first_, active_, zero);
        std::fill_n(scale + active_, L - active_, T(1));
    }

    void refit(Index from, Index to, Index group) {
        alignas(64) T scale[L];
        alignas(64) T zero[L];
        load_params(group, scale, zero);
        if constexpr (TwoLevelGrid<G, T>) {
            alignas(64) T shared_scale[L];
            alignas(64) T shared_zero[L];
            lanes::load<L>(b_.shared.row(0) + first_, active_, shared_scale);
            lanes::load<L>(b_.shared.row(1) + first_, active_, shared_zero);
            const auto refit_number = [&](Number number, T* values, auto slope) {
                step(from, to, slope, values, [&](Index l, T along, T curvature, T& gain) {
                    return number_of(refitted_params(grid_, GridParams<T>{scale[l], zero[l]},
                                                     GridParams<T>{shared_scale[l], shared_zero[l]}, number,
                                                     along, curvature, gain),
                                     number);
                });
            };
            refit_number(Number::Scale, scale, [&](int code, Index) {
                return grid_.decode(code, GridParams<T>{T(1), T(0)});
            });
            if (grid_.has_minimum()) refit_number(Number::Zero, zero, [](int, Index) { return T(1); });
            std::copy_n(zero, active_, b_.zeros.row(group) + first_);
        } else {
            step(
                from, to, [&](int code, Index l) { return detail::slope_of(grid_, code, zero[l]); }, scale,
                [&](Index l, T along, T curvature, T& gain) {
                    return detail::refitted_scale(grid_, scale[l], along, curvature, gain);
                });
        }
        std::copy_n(scale, active_, b_.scales.row(group) + first_);
    }

    /// One number of the group's parameters, dQ = slope(code, lane) d`values`: next(lane, along, curvature, gain) is
    /// what it becomes.
    template <class Slope, class Next>
    void step(Index from, Index to, Slope slope_of_code, T* values, Next next) {
        for (Index k = from; k < to; ++k) {
            const int* code = codes_.data() + k * L;
            T* slope = at(slope_, k);
            for (Index l = 0; l < L; ++l) slope[l] = slope_of_code(code[l], l);
        }
        T along[L];
        T curvature[L];
        for (Index l = 0; l < L; ++l) along[l] = curvature[l] = T(0);
        for (Index k = from; k < to; ++k) {
            T* curved = at(curved_, k);
            for (Index l = 0; l < L; ++l) curved[l] = T(0);
            lanes::accumulate<L>(b_.gram.row(k) + from, at(slope_, from), to - from, curved);
            const T* slope = at(slope_, k);
            const T* gradient = at(gradient_, k);
            for (Index l = 0; l < L; ++l)
                detail::add_to_refit(slope[l], gradient[l], curved[l], along[l], curvature[l]);
        }
        alignas(64) T steps[L];
        for (Index l = 0; l < L; ++l) {
            T gain;
            const T value = next(l, along[l], curvature[l], gain);
            steps[l] = open_[l] ? value - values[l] : T(0);
            lowered_[l] += open_[l] ? gain : T(0);
            values[l] = open_[l] ? value : values[l];
        }
        for (Index k = from; k < to; ++k) {
            for (Index l = 0; l < L; ++l) at(gradient_, k)[l] -= steps[l] * at(curved_, k)[l];
            for (Index l = 0; l < L; ++l) at(moved_, k)[l] += steps[l] * at(slope_, k)[l];
        }
    }

    /// The codes of columns [from, to), whose gradients lack their own changes only.
    void sweep(Index from, Index to) {
        Index group = -1;
        alignas(64) T scale[L];
        alignas(64) T zero[L];
        for (Index i = 0; i < to - from; ++i) {
            const Index k = b_.backward ? to - 1 - i : from + i;
            if (const Index g = b_.group_of[static_cast<std::size_t>(b_.begin + k)]; g != group) {
                group = g;
                load_params(g, scale, zero);
            }
            T* gradient = at(gradient_, k);
            add_changes(k, b_.backward ? k + 1 : from, i, gradient);
            choose(k, gradient, scale, zero);
        }
    }

    /// The objective changes by -H_kk moved (2 d - moved), d = g_k / H_kk.
    void choose(Index k, const T* gradient, const T* scale, const T* zero) {
        const T h = b_.gram(k, k);
        const T inverse = T(1) / h;
        int* code = codes_.data() + k * L;
        T* change = at(change_, k);
        alignas(64) T q[L];
        alignas(64) T d[L];
        alignas(64) T moved[L];
        alignas(64) int next[L];
        for (Index l = 0; l < L; ++l) q[l] = grid_.decode(code[l], GridParams<T>{scale[l], zero[l]});
        for (Index l = 0; l < L; ++l) d[l] = gradient[l] * inverse;
        for (Index l = 0; l < L; ++l) next[l] = grid_.encode(q[l] + d[l], GridParams<T>{scale[l], zero[l]});
        for (Index l = 0; l < L; ++l)
            moved[l] = grid_.decode(next[l], GridParams<T>{scale[l], zero[l]}) - q[l];
        for (Index l = 0; l < L; ++l) {
            // |d - moved| < |d|, without the rounding of a difference
            const T gain = moved[l] * (T(2) * d[l] - moved[l]);
            const int better = open_[l] & int(gain > T(0));
            next[l] = better ? next[l] : code[l];
            moved[l] = better ? moved[l] : T(0);
            lowered_[l] += better ? h * gain : T(0);
            changed_[l] += next[l] != code[l];
        }
        for (Index l = 0; l < L; ++l) code[l] = next[l];
        for (Index l = 0; l < L; ++l) change[l] = -moved[l];
    }

    void store() {
        for (Index k = 0; k < width_; ++k) {
            T* error = b_.error.row(b_.begin + k) + first_;
            Code* codes = b_.codes.row(b_.begin + k) + first_;
            const T* change = at(change_, k);
            const int* code = codes_.data() + k * L;
            for (Index l = 0; l < active_; ++l) error[l] += change[l];
            for (Index l = 0; l < active_; ++l) codes[l] = static_cast<Code>(code[l]);
        }
        for (Index l = 0; l < active_; ++l) {
            b_.tally(Tally::Lowered, first_ + l) += double(lowered_[l]);
            b_.tally(Tally::Changed, first_ + l) += changed_[l];
        }
    }

    const G grid_;
    const RefineBlock<T>& b_;
    Index width_;
    Index first_ = 0;
    Index active_ = 0;
    std::vector<T> gradient_;  // g, complete for columns outside of the group in work
    std::vector<T> change_;    // b
    std::vector<T> slope_;     // C
    std::vector<T> curved_;    // H C within the group
    std::vector<T> moved_;     // what Q has changed by with the group's parameters
    std::vector<int> codes_;
    alignas(64) T lowered_[L];
    alignas(64) int changed_[L];
    alignas(64) int open_[L];
};

}  // namespace residua::detail
