#pragma once

#include <cuda_pipeline.h>

#include "residua/backends/cuda/fit.cuh"
#include "residua/backends/cuda/refine_memory.hpp"
#include "residua/backends/cuda/vector.cuh"
#include "residua/backends/refine_block.hpp"
#include "residua/backends/refit.hpp"

/// A refinement pass over one block of columns, for all output rows in one launch.
///
/// A thread block takes 32 output rows, one per lane. It sees the columns in the order of the pass, and with
/// b_k what column k of E changes by, g_j += b_k H_kj for j > k.
namespace residua::detail::cuda {

inline constexpr int refine_columns = static_cast<int>(refined_columns);
static_assert(refine_rows == lanes && refine_warps == warps);

/// What a refinement pass over a block is told. Views start at the first column of the block.
template <class T>
struct RefineTask {
    MatrixView<T> error, outside;  // (width, rows)
    MatrixView<const T> fresh;     // (width, rows)
    MatrixView<const T> gram;      // (width, width)
    MatrixView<Code> codes;        // (width, rows)
    MatrixView<T> scales;          // (groups, rows)
    MatrixView<T> zeros;           // (groups, rows)
    MatrixView<const T> shared;    // (2, rows) of the family, where one is refitted
    MatrixView<double> tally;
    int width;
    bool backward;
    bool refits;
    int runs;  // of columns of one group, in the order of the pass
    std::int32_t run_end[refine_columns];
    std::int32_t run_group[refine_columns];

    __device__ int column(int p) const { return backward ? width - 1 - p : p; }
};

template <class T, class G>
class RefineTile {
  public:
    __device__ RefineTile(const G& grid, const RefineTask<T>& task, T* memory, RefineScratch<T>& scratch)
        : grid_(grid),
          s_(task),
          size_{task.width},
          scratch_(scratch),
          lane_(threadIdx.x % lanes),
          warp_(threadIdx.x / lanes),
          row_(Index(blockIdx.x) * lanes + lane_),
          active_(row_ < task.error.cols) {
        gram_ = memory;
        g_ = gram_ + size_.gram();
        b_ = g_ + size_.array();
        inverse_ = b_ + size_.array();
        codes_ = reinterpret_cast<Code*>(inverse_ + size_.inverse());
        open_ = active_ && s_.tally(Tally::Finished, row_) == 0.0;
    }

    __device__ void run() {
        load();
        for (int run = 0, from = 0; run < s_.runs; from = s_.run_end[run++]) {
            const int group = s_.run_group[run];
            const int to = s_.run_end[run];
            if (active_) params_ = {s_.scales(group, row_), s_.zeros(group, row_)};
            if constexpr (RefittableGrid<G, T> || TwoLevelGrid<G, T>) {
                if (s_.refits) refit(from, to, group);
            }
            for (int begin = from, end = from; begin < to; begin = end) {
                end = min(start_of_segment(begin) + segment, to);
                if (warp_ == 0) sweep(begin, end, params_);
                __syncthreads();
                if (end == s_.width) break;
                update(begin, end);
                __syncthreads();
            }
        }
        store();
    }

  private:
    using Quad = Vector<T, 4>;
    static constexpr int segment = lanes;
    static constexpr int chunk = RefineMemory<T>::chunk;

    __device__ static int start_of_segment(int p) { return p / chunk * chunk; }
    static constexpr int quads = refine_columns / (4 * warps);  // of columns, for each warp

    __device__ T& at(T* array, int p) const { return array[p * lanes + lane_]; }
    __device__ const T* gram(int p) const { return gram_ + p * size_.length(); }

    /// body(p, i) for the columns p of this warp, the i-th of a batch whose loads come before its stores.
    template <class Load, class Store>
    __device__ void for_own(int from, int to, Load load, Store store) const {
        constexpr int batch = 8;
        for (int first = from + warp_; first < to; first += batch * warps) {
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                if (first + i * warps < to) load(first + i * warps, i);
            }
#pragma unroll
            for (int i = 0; i < batch; ++i) {
                if (first + i * warps < to) store(first + i * warps, i);
            }
        }
    }

    __device__ void load() {
        const int length = size_.length();
        const int step = s_.backward ? -lanes : lanes;
        for (int p = warp_; p < s_.width; p += warps) {
            const T* from = s_.gram.row(s_.column(p)) + s_.column(lane_);
            T* to = gram_ + p * length + lane_;
#pragma unroll
            for (int q = lane_; q < refine_columns; q += lanes, from += step, to += lanes) {
                if (q < s_.width) {
                    __pipeline_memcpy_async(to, from, sizeof(T));
                } else if (q < length) {
                    *to = T(0);
                }
            }
        }
        __pipeline_commit();
        if (warp_ == 0) gram_[s_.width * length + lane_] = T(0);
        T g[8];
        T fresh[8];
        Code code[8];
        for_own(
            0, s_.width,
            [&](int p, int i) {
                const int k = s_.column(p);
                g[i] = fresh[i] = T(0);
                code[i] = 0;
                if (!active_) return;
                fresh[i] = s_.fresh(k, row_);
                g[i] = s_.outside(k, row_);
                code[i] = s_.codes(k, row_);
            },
            [&](int p, int i) {
                at(g_, p) = g[i] + fresh[i];
                codes_[p * lanes + lane_] = code[i];
                if (active_) s_.outside(s_.column(p), row_) = fresh[i];
            });
        for (int p = threadIdx.x; p < s_.width; p += lanes * warps)
            inverse_[p] = T(1) / s_.gram(s_.column(p), s_.column(p));
        __pipeline_wait_prior(0);
        __syncthreads();
    }

    /// E += change(p) in columns [from, to).
    template <class Change>
    __device__ void add_to_error(int from, int to, Change change) const {
        T error[8];
        if (!active_) return;
        for_own(
            from, to, [&](int p, int i) { error[i] = s_.error(s_.column(p), row_); },
            [&](int p, int i) { s_.error(s_.column(p), row_) = error[i] + change(p); });
    }

    /// sums_iv = sum_{from <= p < to} b_p H_pj for the columns j = start + 4 warps i + v of this warp.
    __device__ void products(int from, int to, int start, T (&sums)[quads][4]) const {
#pragma unroll
        for (int i = 0; i < quads; ++i) {
#pragma unroll
            for (int v = 0; v < 4; ++v) sums[i][v] = T(0);
        }
        const int count = (s_.width - start + 4 * warps - 1) / (4 * warps);
        static_assert(quads == 4);
        switch (count) {  // a loop for each number of quads, without a branch in it
            case 4:
                return add_products<4>(from, to, start, sums);
            case 3:
                return add_products<3>(from, to, start, sums);
            case 2:
                return add_products<2>(from, to, start, sums);
            case 1:
                return add_products<1>(from, to, start, sums);
        }
    }
    template <int Count>
    __device__ void add_products(int from, int to, int start, T (&sums)[quads][4]) const {
        const T* row = gram(from) + start;
#pragma unroll 4
        for (int p = from; p < to; ++p, row += size_.length()) {
            const T b = at(b_, p);
#pragma unroll
            for (int i = 0; i < Count; ++i) {
                const Quad h = *reinterpret_cast<const Quad*>(row + 4 * warps * i);
#pragma unroll
                for (int v = 0; v < 4; ++v) sums[i][v] += b * h.v[v];
            }
        }
    }

    /// body(column, sum) for those of `sums` that belong to columns from `first` on.
    template <class Body>
    __device__ void for_columns(int first, int start, const T (&sums)[quads][4], Body body) const {
#pragma unroll
        for (int i = 0; i < quads; ++i) {
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                const int j = start + 4 * warps * i + v;
                if (j >= first && j < s_.width) body(j, sums[i][v]);
            }
        }
    }

    /// First column of this warp's quads that cover the columns from `first` on.
    __device__ int start_of(int first) const { return first / 4 * 4 + 4 * warp_; }

    /// The parameters of the group of columns [from, to).
    __device__ void refit(int from, int to, int group) {
        if constexpr (TwoLevelGrid<G, T>) {
            GridParams<T> shared = {T(1), T(0)};
            if (active_) shared = {s_.shared(0, row_), s_.shared(1, row_)};
            const auto refit_number = [&](Number number, auto slope) {
                step(from, to, number, slope, [&](T along, T curvature, T& gain) {
                    return detail::refitted_params(grid_, params_, shared, number, along, curvature, gain);
                });
            };
            refit_number(Number::Scale, [&](int code) {
                return grid_.decode(code, GridParams<T>{T(1), T(0)});
            });
            if (grid_.has_minimum()) refit_number(Number::Zero, [](int) { return T(1); });
            if (warp_ == 0 && active_) s_.zeros(group, row_) = params_.zero;
        } else {
            step(
                from, to, Number::Scale,
                [&](int code) { return detail::slope_of(grid_, code, params_.zero); },
                [&](T along, T curvature, T& gain) {
                    const T scale = detail::refitted_scale(grid_, params_.scale, along, curvature, gain);
                    return GridParams<T>{scale, params_.zero};
                });
        }
        if (warp_ == 0 && active_) s_.scales(group, row_) = params_.scale;
    }

    /// One number of the group's parameters, with slopes dQ / dnumber in b: next(along, curvature, gain) is what they
    /// become.
    template <class Slope, class Next>
    __device__ void step(int from, int to, Number number, Slope slope, Next next) {
        for (int p = from + warp_; p < to; p += warps) at(b_, p) = slope(int(codes_[p * lanes + lane_]));
        __syncthreads();
        T curved[quads][4];
        const int start = start_of(from);
        products(from, to, start, curved);
        T along = T(0);
        T curvature = T(0);
        for_columns(from, start, curved, [&](int j, T y) {
            if (j >= to) return;
            detail::add_to_refit(at(b_, j), at(g_, j), y, along, curvature);
        });
        scratch_.along[warp_][lane_] = along;
        scratch_.curvature[warp_][lane_] = curvature;
        __syncthreads();
        along = curvature = T(0);
        for (int w = 0; w < warps; ++w) {
            along += scratch_.along[w][lane_];
            curvature += scratch_.curvature[w][lane_];
        }
        T gain = T(0);
        const GridParams<T> changed = next(along, curvature, gain);
        const T moved = open_ ? number_of(changed, number) - number_of(params_, number) : T(0);
        if (open_) params_ = changed;
        if (warp_ == 0 && open_) lowered_ += gain;
        for_columns(from, start, curved, [&](int j, T y) { at(g_, j) -= moved * y; });
        add_to_error(from, to, [&](int p) { return -moved * at(b_, p); });
        __syncthreads();
    }

    /// g_j += sum_{from <= p < to} b_p H_pj for all j >= to.
    __device__ void update(int from, int to) const {
        T sums[quads][4];
        const int start = start_of(to);
        products(from, to, start, sums);
        for_columns(to, start, sums, [&](int j, T sum) { at(g_, j) += sum; });
    }

    /// Codes of columns [from, to) of one segment, by the first warp. x[j]: the gradient of column first + j.
    /// Columns go in aligned chunks; those that are not in [from, to) are taken along and do not change.
    __device__ void sweep(int from, int to, const GridParams<T> params) {
        T x[segment];
        int first = start_of_segment(from);
#pragma unroll
        for (int j = 0; j < segment; ++j)
            x[j] = first + j >= from && first + j < to ? at(g_, first + j) : T(0);
        for (; first < to; first += chunk) {
            int present[chunk];
#pragma unroll
            for (int i = 0; i < chunk; ++i) present[i] = codes_[min(first + i, s_.width - 1) * lanes + lane_];
#pragma unroll
            for (int i = 0; i < chunk; ++i) {
                const int p = first + i;
                T h[segment];
                load_row(gram(p) + first, i / 4 * 4, h);
                const bool may_change = open_ && p >= from && p < to;
                const T q = grid_.decode(present[i], params);
                const T d = x[i] * inverse_[p];
                const int next = grid_.encode(q + d, params);
                const T moved = grid_.decode(next, params) - q;
                const T gain = moved * (T(2) * d - moved);
                const bool better = may_change && gain > T(0);
                const T value = better ? -moved : T(0);
#pragma unroll
                for (int j = i + 1; j < segment; ++j) x[j] += value * h[j];
                lowered_ += better ? h[i] * gain : T(0);
                changed_ += better && next != present[i];
                if (better) codes_[p * lanes + lane_] = static_cast<Code>(next);
                if (p >= from && p < to) at(b_, p) = value;
            }
#pragma unroll
            for (int j = 0; j < segment; ++j) x[j] = j + chunk < segment ? x[j + chunk] : T(0);
        }
    }

    /// h_j = row[j] for j >= from, a multiple of 4.
    __device__ static void load_row(const T* row, int from, T (&h)[segment]) {
#pragma unroll
        for (int j = 0; j < segment; j += 4) {
            if (j < from) continue;
            const Quad quad = *reinterpret_cast<const Quad*>(row + j);
#pragma unroll
            for (int v = 0; v < 4; ++v) h[j + v] = quad.v[v];
        }
    }

    __device__ void store() const {
        add_to_error(0, s_.width, [&](int p) { return at(b_, p); });
        if (!active_) return;
        for (int p = warp_; p < s_.width; p += warps)
            s_.codes(s_.column(p), row_) = codes_[p * lanes + lane_];
        if (warp_ == 0) {
            s_.tally(Tally::Lowered, row_) += double(lowered_);
            s_.tally(Tally::Changed, row_) += changed_;
        }
    }

    const G& grid_;
    const RefineTask<T>& s_;
    RefineMemory<T> size_;
    RefineScratch<T>& scratch_;
    int lane_, warp_;
    Index row_;
    bool active_;  // the row exists
    bool open_;    // and may change
    T* gram_;      // H
    T* g_;
    T* inverse_;  // 1 / H_kk
    T* b_;        // what E has changed by in the sweep; before, the slopes of the group in work
    Code* codes_;
    GridParams<T> params_ = {T(1), T(0)};
    T lowered_ = T(0);
    int changed_ = 0;
};

template <class T, class G>
__global__ void __launch_bounds__(lanes* warps, sizeof(T) > 4 ? 1 : 2)
    refine_kernel(const __grid_constant__ G grid, const __grid_constant__ RefineTask<T> task) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ RefineScratch<T> scratch;
    RefineTile<T, G>(grid, task, reinterpret_cast<T*>(memory), scratch).run();
}

template <class T, class G>
void refine(cudaStream_t stream, const G& grid, const RefineTask<T>& task) {
    const unsigned blocks = static_cast<unsigned>((task.error.cols + lanes - 1) / lanes);
    const std::size_t bytes = RefineMemory<T>{task.width}.bytes();
    check(cudaFuncSetAttribute(refine_kernel<T, G>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
    refine_kernel<T, G><<<blocks, lanes * warps, bytes, stream>>>(grid, task);
    check_launch("refine_kernel");
}

}  // namespace residua::detail::cuda
