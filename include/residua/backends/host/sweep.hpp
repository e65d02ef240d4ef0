#pragma once

#include <algorithm>
#include <vector>

#include "residua/backends/host/executor.hpp"
#include "residua/backends/host/fit.hpp"
#include "residua/backends/sweep_block.hpp"
#include "residua/grids/group_size.hpp"
#include "residua/methods/method.hpp"

namespace residua::detail {

/// The sweep over one SweepBlock for a tile of output rows, left-looking: the sums of a column are completed
/// when its turn comes, over the columns of the block that went before.
template <Real T, Method M, Grid<T> G>
class SweepTile {
  public:
    static constexpr Index L = lanes::width<T>;

    /// Scratch for tiles of this block. `factor_transposed`: R of the block, columns contiguous.
    SweepTile(const M& method, const G& grid, const SweepBlock<T>& block, const T* factor_transposed)
        : method_(method),
          grid_(grid),
          b_(block),
          factor_(factor_transposed),
          extent_(block.reach - block.begin) {
        const auto lanes_of = [&](Index columns) { return static_cast<std::size_t>(columns * L); };
        const Index width = b_.end - b_.begin;
        original_.resize(lanes_of(extent_));
        sums_.resize(lanes_of(extent_));
        fed_.resize(lanes_of(width));
        current_.resize(lanes_of(extent_));
        if (ClipSearch(grid_.clip).by_loss()) {
            trial_.resize(lanes_of(extent_));
            for (Index k = 0; k < extent_; ++k) {
                const T relative = diagonal(k) / diagonal(0);  // squares of R_kk themselves may overflow
                weights_.push_back(relative * relative);
            }
        }
        if constexpr (forwards) residual_.resize(lanes_of(width));
        if (has_other_view()) {
            compensated_.resize(lanes_of(width));
            quantized_.resize(lanes_of(width));
        }
    }

    /// Output rows [first, first + active), active <= L.
    void run(Index first, Index active) {
        load(first, active);
        const Index width = b_.end - b_.begin;
        auto next_fit = b_.fits.begin();
        if constexpr (!TwoLevelGrid<G, T>) {
            if (b_.published.scales == GroupScales::Stale && next_fit != b_.fits.end()) {
                current_weights(0, extent_);
                for (; next_fit != b_.fits.end(); ++next_fit) fit(*next_fit, first, active);
            }
        }

        Index seen = 0;  // columns of the block before it are in the sums of the present group
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
        if (has_other_view()) change_view(scale, zero);
        store(first, active);
    }

  private:
    static constexpr bool forwards = M::residuals == Residuals::OfColumnsBefore;

    bool has_other_view() const { return b_.published.view != ResidualView::Compensated; }
    T* at(std::vector<T>& lanes, Index k) { return lanes.data() + k * L; }
    T diagonal(Index k) const { return b_.factor(b_.begin + k, b_.begin + k); }
    const T* factor_column(Index k) const { return factor_ + k * extent_; }  // R_ik, i contiguous
    const T* residual_column(Index k) const {
        return b_.residual_matrix.row(b_.begin + k) + b_.begin;
    }  // M_ik

    void load(Index first, Index active) {
        for (Index k = 0; k < extent_; ++k) {
            lanes::load<L>(b_.columns.row(b_.begin + k) + first, active, at(original_, k));
            lanes::load<L>(b_.sums.row(k) + first, active, at(sums_, k));
        }
    }

    /// G_j += f_i R_ij + a_i M_ij for i in [from, to).
    void bring_up_to_date(Index j, Index from, Index to) {
        lanes::accumulate<L>(factor_column(j) + from, at(fed_, from), to - from, at(sums_, j));
        if constexpr (forwards)
            lanes::accumulate<L>(residual_column(j) + from, at(residual_, from), to - from, at(sums_, j));
    }

    /// w + y, y R = G, over the columns [from, to).
    void current_weights(Index from, Index to) {
        for (Index j = from; j < to; ++j) {
            T sum[L];
            for (Index l = 0; l < L; ++l) sum[l] = T(0);
            lanes::accumulate<L>(factor_column(j) + from, at(current_, from), j - from, sum);
            const T* g = at(sums_, j);
            const T inverse = T(1) / diagonal(j);
            T* y = at(current_, j);
            for (Index l = 0; l < L; ++l) y[l] = (g[l] - sum[l]) * inverse;
        }
        for (Index j = from; j < to; ++j) {
            const T* w = at(original_, j);
            T* y = at(current_, j);
            for (Index l = 0; l < L; ++l) y[l] += w[l];
        }
    }

    /// The parameters of a group, or the codes of one that was fitted with its family.
    void fit(const GroupRange& group, Index first, Index active) {
        alignas(64) T scale[L];
        alignas(64) T zero[L];
        const Index from = group.begin - b_.begin;
        const Index count = group.end - group.begin;
        const auto column = [&](Index i) { return at(current_, from + i); };
        const auto loss = [&](const T* s, const T* z, T* sums) {
            group_loss(from, from + count, s, z, sums);
        };
        if constexpr (TwoLevelGrid<G, T>) {
            alignas(64) T shared_scale[L];
            alignas(64) T shared_zero[L];
            lanes::load<L>(b_.scales.row(group.id) + first, active, scale);
            lanes::load<L>(b_.zeros.row(group.id) + first, active, zero);
            lanes::load<L>(b_.shared.row(0) + first, active, shared_scale);
            lanes::load<L>(b_.shared.row(1) + first, active, shared_zero);
            lanes::search_codes<L>(grid_, count, column, weights_.data() + from, shared_scale, shared_zero,
                                   loss, scale, zero);
        } else if (ClipSearch(grid_.clip).by_loss()) {
            lanes::fit_by_loss<L>(grid_, count, column, weights_.data() + from, loss, scale, zero);
        } else {
            lanes::fit<L>(grid_, count, column, static_cast<const T*>(nullptr), scale, zero);
        }
        std::copy_n(scale, active, b_.scales.row(group.id) + first);
        std::copy_n(zero, active, b_.zeros.row(group.id) + first);
    }

    /// What the columns [from, to) lose with these parameters, sum_k R_kk^2 (c_k - q_k)^2 of the recurrence over
    /// them alone, which starts from their current weights.
    void group_loss(Index from, Index to, const T* scale, const T* zero, T* loss) {
        std::fill_n(loss, L, T(0));
        for (Index k = from; k < to; ++k) {
            alignas(64) T sum[L];
            for (Index l = 0; l < L; ++l) sum[l] = T(0);
            lanes::accumulate<L>(factor_column(k) + from, at(trial_, from), k - from, sum);
            const T* w = at(current_, k);
            const T inverse = T(1) / diagonal(k);
            const T weight = weights_[static_cast<std::size_t>(k)];
            T* f = at(trial_, k);
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> p = {scale[l], zero[l]};
                const T c = w[l] + sum[l] * inverse;
                const T q = grid_.decode(grid_.encode(c, p), p);
                loss[l] += weight * ((c - q) * (c - q));
                f[l] = w[l] - q;
            }
        }
    }

    void quantize(Index k, const T* scale, const T* zero, Index first, Index active) {
        const T* g = at(sums_, k);
        const T* w = at(original_, k);
        const T inverse = T(1) / diagonal(k);
        alignas(64) T c[L];
        alignas(64) T q[L];
        alignas(64) int code[L];
        int finite = 1;
        for (Index l = 0; l < L; ++l) c[l] = w[l] + g[l] * inverse;
        for (Index l = 0; l < L; ++l) finite &= detail::is_finite(c[l]);
        for (Index l = 0; l < L; ++l) code[l] = grid_.encode(c[l], GridParams<T>{scale[l], zero[l]});
        for (Index l = 0; l < L; ++l) q[l] = grid_.decode(code[l], GridParams<T>{scale[l], zero[l]});

        T* fed = at(fed_, k);
        for (Index l = 0; l < L; ++l) fed[l] = w[l] - method_.fed_back(q[l], c[l], w[l]);
        if constexpr (forwards) {
            T* residual = at(residual_, k);
            for (Index l = 0; l < L; ++l) residual[l] = method_.residual(c[l], w[l]);
        }
        if (has_other_view()) {
            std::copy_n(c, L, at(compensated_, k));
            std::copy_n(q, L, at(quantized_, k));
        }
        Code* codes = b_.codes.row(b_.begin + k) + first;
        for (Index l = 0; l < active; ++l) codes[l] = static_cast<Code>(code[l]);
        if (!finite) raise_flag(b_.overflow);
    }

    /// Replaces v = c by the view v' that later blocks have, of which the block's own columns know nothing:
    /// a becomes a', and f becomes f + z with z R = (s - s') diag(R) + (a - a') triu(M, strict).
    void change_view(const T* scale, const T* zero) {
        const Index width = b_.end - b_.begin;
        T* z = current_.data();
        std::vector<T> change(forwards ? static_cast<std::size_t>(width * L) : 0);  // a - a'
        for (Index k = 0; k < width; ++k) {
            const T* c = at(compensated_, k);
            const T* q = at(quantized_, k);
            const T* w = at(original_, k);
            T v[L];
            T sum[L];
            for (Index l = 0; l < L; ++l) {
                const GridParams<T> p = {scale[l], zero[l]};
                const T low = grid_.decode(0, p);
                const T high = grid_.decode(grid_.levels() - 1, p);
                v[l] = b_.published.view == ResidualView::Quantized ? q[l] : detail::clamp(c[l], low, high);
                sum[l] = T(0);
            }
            lanes::accumulate<L>(factor_column(k), z, k, sum);
            for (Index l = 0; l < L; ++l) sum[l] = -sum[l];
            if constexpr (forwards) {
                lanes::accumulate<L>(residual_column(k), change.data(), k, sum);
                T* residual = at(residual_, k);
                for (Index l = 0; l < L; ++l) {
                    const T other = method_.residual(v[l], w[l]);
                    at(change, k)[l] = residual[l] - other;
                    residual[l] = other;
                }
            }
            const T inverse = T(1) / diagonal(k);
            for (Index l = 0; l < L; ++l) {
                const T fed_back = method_.fed_back(q[l], c[l], w[l]);
                z[k * L + l] = fed_back - method_.fed_back(q[l], v[l], w[l]) + sum[l] * inverse;
            }
        }
        for (Index i = 0; i < width * L; ++i) fed_[static_cast<std::size_t>(i)] += z[i];
    }

    void store(Index first, Index active) {
        for (Index k = 0; k < b_.end - b_.begin; ++k) {
            std::copy_n(at(fed_, k), active, b_.columns.row(b_.begin + k) + first);
            if constexpr (forwards)
                std::copy_n(at(residual_, k), active, b_.residuals.row(b_.begin + k) + first);
        }
    }

    const M method_;
    const G grid_;
    const SweepBlock<T>& b_;
    const T* factor_;
    Index extent_;
    std::vector<T> original_;     // w
    std::vector<T> sums_;         // G
    std::vector<T> fed_;          // f
    std::vector<T> residual_;     // a
    std::vector<T> current_;      // weights that grids are fitted to; z of change_view
    std::vector<T> trial_;        // w - q of a candidate of a search by loss
    std::vector<T> weights_;      // R_kk^2, up to a common factor
    std::vector<T> compensated_;  // c
    std::vector<T> quantized_;    // q
};

}  // namespace residua::detail
