#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "residua/backend/host/lanes.hpp"
#include "residua/backend/sweep_block.hpp"
#include "residua/core/rule.hpp"

namespace residua {

/// The sweep over one block of columns for a tile of output rows, left-looking: with i running over the
/// columns of the block only and everything before it already in `feedback` and `target`,
///
///     c_k = t_k + (G_k + sum_i f_i R_ik) / R_kk,   t_k = T_k + sum_i a_i P_ik,   f_k = t_k - s_k.
template <Real T, Rule M, Grid<T> G>
class SweepTile {
  public:
    static constexpr Index L = lanes::width<T>;

    /// Scratch for tiles of this block.
    SweepTile(const M& rule, const G& grid, const SweepBlock<T>& block, const T* factor_transposed)
        : rule_(rule),
          grid_(grid),
          b_(block),
          factor_(factor_transposed),
          extent_(block.reach - block.begin) {
        const auto lanes_of = [&](Index columns) { return static_cast<std::size_t>(columns * L); };
        const Index width = b_.end - b_.begin;
        original_.resize(lanes_of(extent_));
        feedback_.resize(lanes_of(extent_));
        fed_.resize(lanes_of(width));
        current_.resize(lanes_of(extent_));
        if constexpr (forwards) {
            target_.resize(lanes_of(extent_));
            forward_.resize(lanes_of(width));
        }
        if (b_.view != ResidualView::Compensated) {
            compensated_.resize(lanes_of(width));
            quantized_.resize(lanes_of(width));
        }
    }

    /// Output rows [first, first + active), active <= L.
    void run(Index first, Index active) {
        load(first, active);
        const Index width = b_.end - b_.begin;
        auto next_fit = b_.fits.begin();
        if (b_.fit_on == GroupScales::Stale && next_fit != b_.fits.end()) {
            current_weights(0, extent_);
            for (; next_fit != b_.fits.end(); ++next_fit) fit(*next_fit, first, active);
        }

        Index seen = 0;  // columns of the block before it are in feedback_ and target_ of the present group
        Index group = -1;
        alignas(64) T scale[L];
        alignas(64) T zero[L];
        for (Index k = 0; k < width; ++k) {
            if (next_fit != b_.fits.end() && next_fit->begin == b_.begin + k) {
                const Index stop = next_fit->end - b_.begin;
                for (Index j = k; j < stop; ++j) bring_up_to_date(j, 0, k);
                seen = k;
                current_weights(k, stop);
                fit(*next_fit++, first, active);
            }
            if (const Index g = b_.group_of[static_cast<std::size_t>(b_.begin + k)]; g != group) {
                group = g;
                lanes::load<L>(b_.scales.row(g) + first, active, scale);
                lanes::load<L>(b_.zeros.row(g) + first, active, zero);
                std::fill_n(scale + active, L - active, T(1));
            }
            bring_up_to_date(k, seen, k);
            quantize(k, scale, zero, first, active);
        }
        if (b_.view != ResidualView::Compensated) change_view(scale, zero);
        store(first, active);
    }

  private:
    static constexpr bool forwards = M::target == Target::Forwarded;

    T* at(std::vector<T>& lanes, Index k) { return lanes.data() + k * L; }
    T* target(Index k) { return forwards ? at(target_, k) : at(original_, k); }
    T diagonal(Index k) const { return b_.factor(b_.begin + k, b_.begin + k); }
    const T* factor_column(Index k) const { return factor_ + k * extent_; }  // R_ik, i contiguous

    void load(Index first, Index active) {
        for (Index k = 0; k < extent_; ++k) {
            lanes::load<L>(b_.columns.row(b_.begin + k) + first, active, at(original_, k));
            lanes::load<L>(b_.feedback.row(k) + first, active, at(feedback_, k));
            if constexpr (forwards) lanes::load<L>(b_.target.row(k) + first, active, at(target_, k));
        }
    }

    /// feedback_j += sum f_i R_ij, target_j += sum a_i P_ij, i in [from, to).
    void bring_up_to_date(Index j, Index from, Index to) {
        lanes::accumulate<L>(factor_column(j) + from, at(fed_, from), to - from, at(feedback_, j));
        if constexpr (forwards) {
            const T* projection = b_.projection.row(b_.begin + j) + b_.begin;
            lanes::accumulate<L>(projection + from, at(forward_, from), to - from, at(target_, j));
        }
    }

    /// Weights of [from, to) compensated for all columns before `from`: t + y with y R = feedback.
    void current_weights(Index from, Index to) {
        for (Index j = from; j < to; ++j) {
            T sum[L];
            for (Index l = 0; l < L; ++l) sum[l] = T(0);
            lanes::accumulate<L>(factor_column(j) + from, at(current_, from), j - from, sum);
            const T* feedback = at(feedback_, j);
            const T inverse = T(1) / diagonal(j);
            T* y = at(current_, j);
            for (Index l = 0; l < L; ++l) y[l] = (feedback[l] - sum[l]) * inverse;
        }
        for (Index j = from; j < to; ++j) {
            const T* t = target(j);
            T* y = at(current_, j);
            for (Index l = 0; l < L; ++l) y[l] += t[l];
        }
    }

    void fit(const GroupRange& group, Index first, Index active) {
        alignas(64) T scale[L];
        alignas(64) T zero[L];
        const Index from = group.begin - b_.begin;
        lanes::fit<L>(
            grid_, group.end - group.begin, [&](Index i) { return at(current_, from + i); }, scale, zero);
        std::copy_n(scale, active, b_.scales.row(group.id) + first);
        std::copy_n(zero, active, b_.zeros.row(group.id) + first);
    }

    void quantize(Index k, const T* scale, const T* zero, Index first, Index active) {
        const T* feedback = at(feedback_, k);
        const T* original = at(original_, k);
        const T* t = target(k);
        const T inverse = T(1) / diagonal(k);
        alignas(64) T c[L];
        alignas(64) T q[L];
        alignas(64) int code[L];
        int finite = 1;
        for (Index l = 0; l < L; ++l) c[l] = t[l] + feedback[l] * inverse;
        for (Index l = 0; l < L; ++l) finite &= is_finite(c[l]);
        for (Index l = 0; l < L; ++l) code[l] = grid_.encode(c[l], GridParams<T>{scale[l], zero[l]});
        for (Index l = 0; l < L; ++l) q[l] = grid_.decode(code[l], GridParams<T>{scale[l], zero[l]});

        T* fed = at(fed_, k);
        for (Index l = 0; l < L; ++l) fed[l] = t[l] - rule_.fed_back(q[l], c[l], original[l]);
        if constexpr (forwards) {
            T* forward = at(forward_, k);
            for (Index l = 0; l < L; ++l) forward[l] = rule_.fed_forward(c[l], original[l]);
        }
        if (b_.view != ResidualView::Compensated) {
            std::copy_n(c, L, at(compensated_, k));
            std::copy_n(q, L, at(quantized_, k));
        }
        Code* codes = b_.codes.row(b_.begin + k) + first;
        for (Index l = 0; l < active; ++l) codes[l] = static_cast<Code>(code[l]);
        if (!finite) std::atomic_ref<Code>(*b_.overflow).store(1, std::memory_order_relaxed);
    }

    /// Replaces v_i = c_i by the view that later blocks have. With d_i the change of s_i, f changes by y,
    /// y R = -d diag(R).
    void change_view(const T* scale, const T* zero) {
        const Index width = b_.end - b_.begin;
        T* y = current_.data();
        for (Index k = 0; k < width; ++k) {
            const T* c = at(compensated_, k);
            const T* q = at(quantized_, k);
            const T* original = at(original_, k);
            T v[L];
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> p = {scale[l], zero[l]};
                const T low = grid_.decode(0, p);
                const T high = grid_.decode(grid_.levels() - 1, p);
                v[l] = b_.view == ResidualView::Quantized ? q[l] : clamp(c[l], low, high);
            }
            if constexpr (forwards) {
                T* forward = at(forward_, k);
                for (Index l = 0; l < L; ++l) forward[l] = rule_.fed_forward(v[l], original[l]);
            }
            if constexpr (M::residual_feedback) {
                T sum[L];
                for (Index l = 0; l < L; ++l) sum[l] = T(0);
                lanes::accumulate<L>(factor_column(k), y, k, sum);
                const T inverse = T(1) / diagonal(k);
                for (Index l = 0; l < L; ++l) {
                    const T change =
                        rule_.fed_back(q[l], v[l], original[l]) - rule_.fed_back(q[l], c[l], original[l]);
                    y[k * L + l] = -change - sum[l] * inverse;
                }
            }
        }
        if constexpr (M::residual_feedback) {
            for (Index i = 0; i < width * L; ++i) fed_[static_cast<std::size_t>(i)] += y[i];
        }
    }

    void store(Index first, Index active) {
        for (Index k = 0; k < b_.end - b_.begin; ++k) {
            std::copy_n(at(fed_, k), active, b_.columns.row(b_.begin + k) + first);
            if constexpr (forwards)
                std::copy_n(at(forward_, k), active, b_.forward.row(b_.begin + k) + first);
        }
    }

    const M rule_;
    const G grid_;
    const SweepBlock<T>& b_;
    const T* factor_;
    Index extent_;
    std::vector<T> original_, feedback_, target_, fed_, forward_, current_, compensated_, quantized_;
};

}  // namespace residua
