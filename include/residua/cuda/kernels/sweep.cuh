#pragma once

#include "residua/cuda/kernels/sweep_columns.cuh"

/// The sweep over one block of columns, for all output rows in one launch.
///
/// A thread block takes 32 output rows, one per lane. With everything before the block already in G and T,
///
///     c_k = t_k + G_k / R_kk,   f_k = t_k - s_k,   G_j += f_k R_kj,   T_j += a_k P_kj   for j > k.
namespace residua::cuda {

template <class T, class M, class G, bool Shared>
class SweepTile : SweepColumns<T, M, Shared> {
  public:
    __device__ SweepTile(const M& rule, const G& grid, const SweepTask<T>& task, T* memory,
                         FitScratch<T>& fit_scratch)
        : Base(task, memory), rule_(rule), grid_(grid), fit_scratch_(fit_scratch) {}

    __device__ void run() {
        load();
        int next = 0;
        if (s_.fit_on == GroupScales::Stale && s_.fits > 0) {
            current_weights(0, s_.extent);
            for (; next < s_.fits; ++next) fit(next);
        }
        for (int from = 0, to = 0; from < s_.width; from = to) {
            if (next < s_.fits && s_.fit_begin(next) == from) {
                current_weights(from, s_.fit_end(next));
                fit(next++);
            }
            to = min(end_of_segment(from), s_.width);
            if (next < s_.fits) to = min(to, s_.fit_begin(next));
            if (warp_ == 0) quantize(from, to);
            __syncthreads();
            if (to == s_.width) break;
            this->template update<factor, 1>(g_, from, to, s_.extent);
            if constexpr (forwards) this->template update<projection, 1>(t_, from, to, s_.extent);
            __syncthreads();
        }
        store_codes();
        if (size_.two_views) change_view();
        store();
        if (!finite_) *s_.overflow = 1;
    }

  private:
    using Base = SweepColumns<T, M, Shared>;
    using Base::active_;
    using Base::at;
    using Base::c_;
    using Base::current_weights;
    using Base::end_of_segment;
    using Base::factor;
    using Base::forwards;
    using Base::g_;
    using Base::inverse_;
    using Base::lane_;
    using Base::load;
    using Base::projection;
    using Base::q_;
    using Base::row_;
    using Base::s_;
    using Base::size_;
    using Base::solve;
    using Base::store;
    using Base::store_codes;
    using Base::t_;
    using Base::w_;
    using Base::warp_;
    using Base::y_;
    using Row = typename Base::Row;
    template <int C>
    using Window = typename Base::template Window<C>;

    __device__ void fit(int f) const {
        const int begin = s_.fit_begin(f);
        const auto column = [&](int i) { return at(y_, begin + i); };
        const GridParams<T> params =
            fit_group<T>(grid_, s_.fit_end(f) - begin, column, fit_scratch_, warp_, lane_);
        if (warp_ == 0 && active_) {
            s_.scales(s_.fit_id(f), row_) = params.scale;
            s_.zeros(s_.fit_id(f), row_) = params.zero;
        }
        __syncthreads();
    }

    /// Columns [from, to) of one segment, by the first warp: f in place of G, a in place of T, codes in y.
    __device__ void quantize(int from, int to) {
        // bit i: column from + i is of another group than the one before
        const int mine = s_.group_of(min(from + lane_, to - 1));
        const int before = __shfl_up_sync(0xffffffffu, mine, 1);
        const unsigned starts = __ballot_sync(0xffffffffu, mine != (lane_ == 0 ? group_ : before));
        Window<factor> g;
        Window<projection> t;
        g.start(*this, g_, from);
        if constexpr (forwards) t.start(*this, t_, from);
        for (int begin = from, end = from; begin < to; begin = end) {
            if (starts >> (begin - from) & 1u) {
                group_ = __shfl_sync(0xffffffffu, mine, begin - from);
                if (active_) params_ = {s_.scales(group_, row_), s_.zeros(group_, row_)};
            }
            const unsigned later = begin - from == lanes - 1 ? 0 : starts >> (begin - from + 1);
            end = later ? min(to, begin + __ffs(static_cast<int>(later))) : to;
            if (size_.two_views) {
                quantize_group<true>(begin, end, g, t);
            } else {
                quantize_group<false>(begin, end, g, t);
            }
        }
    }

    template <bool TwoViews>
    __device__ void quantize_group(int begin, int end, Window<factor>& g, Window<projection>& t) {
        T inverse = inverse_[begin];
        T original = at(w_, begin);
#pragma unroll 2
        for (int k = begin; k < end; ++k) {
            const T target = forwards ? t.x[0] : original;
            const T c = target + g.x[0] * inverse;
            const T w = original;
            const Row row = this->template near<factor>(k);
            inverse = inverse_[k + 1];  // one past the end may be read
            original = at(w_, k + 1);
            g.catch_up();
            if constexpr (forwards) {
                const T a = rule_.fed_forward(c, w);
                t.catch_up();
                t.finish(a, this->template near<projection>(k));
                at(t_, k) = a;
            }
            finite_ = finite_ && is_finite(c);
            const int code = grid_.encode(c, params_);
            const T q = grid_.decode(code, params_);
            const T f = target - rule_.fed_back(q, c, w);
            g.finish(f, row);
            at(g_, k) = f;
            at(y_, k) = from_code<T>(code);
            if constexpr (TwoViews) {
                at(c_, k) = c;
                at(q_, k) = q;
            }
        }
    }

    /// Replaces v_i = c_i by the view that later blocks have. With d_i the change of s_i, f changes by y,
    /// y R = -d diag(R).
    __device__ void change_view() {
        // the range is that of the block's last group, which the first warp has at hand
        if (warp_ == 0) {
            fit_scratch_.low[0][lane_] = grid_.decode(0, params_);
            fit_scratch_.high[0][lane_] = grid_.decode(grid_.levels() - 1, params_);
        }
        __syncthreads();
        const T low = fit_scratch_.low[0][lane_];
        const T high = fit_scratch_.high[0][lane_];
        const auto later = [&](int k) {
            return s_.view == ResidualView::Quantized ? at(q_, k) : clamp(at(c_, k), low, high);
        };
        if constexpr (forwards) {
            for (int k = warp_; k < s_.width; k += warps) at(t_, k) = rule_.fed_forward(later(k), at(w_, k));
        }
        if constexpr (M::residual_feedback) {
            for (int k = warp_; k < s_.width; k += warps) at(y_, k) = T(0);
            __syncthreads();
            solve(0, s_.width, [&](int k, T y) {
                const T original = at(w_, k);
                return y - (rule_.fed_back(at(q_, k), later(k), original) -
                            rule_.fed_back(at(q_, k), at(c_, k), original));
            });
            for (int k = warp_; k < s_.width; k += warps) at(g_, k) += at(y_, k);
        }
        __syncthreads();
    }

    const M& rule_;
    const G& grid_;
    FitScratch<T>& fit_scratch_;
    bool finite_ = true;
    int group_ = -1;
    GridParams<T> params_ = {T(1), T(0)};
};

template <class T, class M, class G, bool Shared>
__global__ void __launch_bounds__(lanes* warps, M::target == Target::Forwarded || sizeof(T) > 4 ? 1 : 2)
    sweep_kernel(const __grid_constant__ M rule, const __grid_constant__ G grid,
                 const __grid_constant__ SweepTask<T> task) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ FitScratch<T> fit_scratch;
    SweepTile<T, M, G, Shared>(rule, grid, task, reinterpret_cast<T*>(memory), fit_scratch).run();
}

/// `shared_bytes`: of the tile and its coefficients, 0 to keep the tile in task.scratch.
template <class T, class M, class G>
void sweep(cudaStream_t stream, const M& rule, const G& grid, const SweepTask<T>& task,
           std::size_t shared_bytes) {
    const unsigned blocks = static_cast<unsigned>((task.columns.cols + lanes - 1) / lanes);
    if (shared_bytes > 0) {
        check(cudaFuncSetAttribute(sweep_kernel<T, M, G, true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              "cudaFuncSetAttribute");
        sweep_kernel<T, M, G, true><<<blocks, lanes * warps, shared_bytes, stream>>>(rule, grid, task);
    } else {
        sweep_kernel<T, M, G, false><<<blocks, lanes * warps, 0, stream>>>(rule, grid, task);
    }
    check_launch("sweep_kernel");
}

}  // namespace residua::cuda
