#pragma once

#include <cuda_pipeline.h>

#include "residua/cuda/kernels/sweep_task.cuh"

namespace residua::cuda {

/// The columns and coefficients of one thread block of a sweep, and sums over them.
///
/// Columns go in segments of 32: the first warp takes a segment in registers, one column after the other
/// (Window); then all warps add the finished columns to those behind the segment (update).
///
/// \tparam Shared  whether the block keeps them in shared memory, or in SweepTask::scratch
template <class T, class M, bool Shared>
class SweepColumns {
  public:
    static constexpr bool forwards = M::target == Target::Forwarded;
    static constexpr int segment = lanes;

    __device__ SweepColumns(const SweepTask<T>& task, T* memory)
        : s_(task),
          size_{task.extent, task.width, task.view != ResidualView::Compensated},
          lane_(threadIdx.x % lanes),
          warp_(threadIdx.x / lanes),
          row_(Index(blockIdx.x) * lanes + lane_),
          active_(row_ < task.columns.cols) {
        T* next = Shared ? memory : task.scratch + Index(blockIdx.x) * size_.tile();
        const auto take = [&](int count) {
            T* const part = next;
            next += count;
            return part;
        };
        inverse_ = take(size_.leading());
        w_ = take(size_.array());
        g_ = take(size_.array());
        y_ = take(size_.array());
        t_ = forwards ? take(size_.array()) : w_;
        if (size_.two_views) {
            c_ = take(size_.array());
            q_ = take(size_.array());
        }
        if constexpr (Shared) {
            near_[0] = take(size_.near(size_.leading()));
            far_[0] = take(size_.triangle() - size_.near(size_.leading()));
            if constexpr (forwards) {
                near_[1] = take(size_.near(size_.leading()));
                far_[1] = take(size_.triangle() - size_.near(size_.leading()));
            }
        }
    }

  protected:
    static constexpr int factor = 0;
    static constexpr int projection = 1;

    /// Coefficients (k, k + 1) ... (k, k + 31); 0 beyond the tile.
    struct Row {
        Quad<T> quads[segment / 4];
        __device__ T operator[](int j) const { return quads[j / 4].v[j % 4]; }
    };

    __device__ static int end_of_segment(int k) { return k / segment * segment + segment; }
    __device__ T& at(T* array, int k) const { return array[k * lanes + lane_]; }

    template <int C>
    __device__ T coefficient(int i, int j) const {
        return C == projection ? s_.projection(j, i) : s_.factor(i, j);
    }

    template <int C>
    __device__ Row near(int k) const {
        Row row;
#pragma unroll
        for (int j = 0; j < segment; j += 4) {
            if constexpr (Shared) {
                row.quads[j / 4] = *reinterpret_cast<const Quad<T>*>(near_[C] + size_.near(k) + j);
            } else {
                for (int v = j; v < j + 4; ++v) {
                    row.quads[j / 4].v[v % 4] = k + 1 + v < s_.extent ? coefficient<C>(k, k + 1 + v) : T(0);
                }
            }
        }
        return row;
    }

    __device__ void fetch(T* to, const T* from) const {
        if constexpr (Shared) {
            __pipeline_memcpy_async(to, from, sizeof(T));
        } else {
            *to = *from;
        }
    }

    __device__ void load() {
        if constexpr (Shared) {
            for (int i = warp_; i < s_.extent; i += warps) {
                const bool inside = lane_ < segment - 1 && i + 1 + lane_ < s_.extent;
                T* const near = near_[factor] + size_.near(i) + lane_;
                if (inside) {
                    fetch(near, &s_.factor(i, i + 1 + lane_));
                } else {
                    *near = T(0);
                }
                for (int j = end_of_segment(i) + lane_; j < s_.extent; j += lanes) {
                    fetch(far_[factor] + size_.far(i, j), &s_.factor(i, j));
                }
                if constexpr (forwards) {
                    if (!inside) near_[projection][size_.near(i) + lane_] = T(0);
                    for (int k = lane_; k < min(i, s_.width); k += lanes) {
                        const T* const source = &s_.projection(i, k);
                        if (i - k < segment) fetch(near_[projection] + size_.near(k) + i - k - 1, source);
                        if (i >= end_of_segment(k)) fetch(far_[projection] + size_.far(k, i), source);
                    }
                }
            }
        }
        for (int k = warp_; k < s_.extent; k += warps) {
            if (active_) {
                fetch(&at(w_, k), &s_.columns(k, row_));
                fetch(&at(g_, k), &s_.feedback(k, row_));
                if constexpr (forwards) fetch(&at(t_, k), &s_.target(k, row_));
            } else {
                at(w_, k) = T(0);
                at(g_, k) = T(0);
                if constexpr (forwards) at(t_, k) = T(0);
            }
        }
        if constexpr (Shared) __pipeline_commit();
        for (int k = threadIdx.x; k < s_.extent; k += lanes * warps) inverse_[k] = T(1) / s_.factor(k, k);
        if constexpr (Shared) __pipeline_wait_prior(0);
        __syncthreads();
    }

    /// X_j += Sign sum_{from <= i < to} X_i C_ij for to <= j < end; [from, to) lies in one segment.
    template <int C, int Sign>
    __device__ void update(T* x, int from, int to, int end) const {
        const int aligned = end_of_segment(to - 1);
        for (int j = to + warp_; j < min(aligned, end); j += warps) {
            T sum = T(0);
            for (int i = from; i < to; ++i) {
                sum += at(x, i) * (Shared ? near_[C][size_.near(i) + j - i - 1] : coefficient<C>(i, j));
            }
            at(x, j) += T(Sign) * sum;
        }
        const int length = size_.far_length(from / segment);
        for (int j = aligned + 4 * warp_; j < end; j += 4 * warps) {
            const T* row = Shared ? far_[C] + size_.far(from, j) : nullptr;
            T sum[4] = {};
#pragma unroll 8
            for (int i = from; i < to; ++i, row += length) {
                const T xi = at(x, i);
                Quad<T> c;
                if constexpr (Shared) {
                    c = *reinterpret_cast<const Quad<T>*>(row);
                } else {
                    for (int v = 0; v < 4; ++v) c.v[v] = coefficient<C>(i, min(j + v, s_.extent - 1));
                }
#pragma unroll
                for (int v = 0; v < 4; ++v) sum[v] += xi * c.v[v];
            }
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                if (j + v < end) at(x, j + v) += T(Sign) * sum[v];
            }
        }
    }

    /// Columns of a segment that are not quantized yet, in registers. The last finished column is added to
    /// them only while the next one is worked on, so that the additions fill the gaps of its long chain.
    template <int C>
    struct Window {
        T x[segment];    // x[j]: column k + j; x[0] complete, the others without column k - 1
        Row pending;     // C_{k-1, k} ...
        T value = T(0);  // of column k - 1

        __device__ void start(const SweepColumns& tile, T* array, int from) {
#pragma unroll
            for (int j = 0; j < segment; ++j)
                x[j] = from + j < tile.s_.extent ? tile.at(array, from + j) : T(0);
#pragma unroll
            for (int j = 0; j < segment; ++j) pending.quads[j / 4].v[j % 4] = T(0);
        }

        /// Adds column k - 1 to those behind column k, which then are x[0] ...
        __device__ void catch_up() {
#pragma unroll
            for (int j = 0; j + 1 < segment; ++j) x[j] = x[j + 1] + value * pending[j + 1];
        }

        /// Column k is worth `v`: completes column k + 1.
        __device__ void finish(T v, const Row& row) {
            x[0] += v * row[0];
            pending = row;
            value = v;
        }
    };

    /// In y, for columns [from, to): y_k = step(k, r_k / R_kk), r_k = y_k - sum_{from <= i < k} y_i R_ik.
    template <class Step>
    __device__ void solve(int from, int to, Step step) const {
        for (int begin = from, end = from; begin < to; begin = end) {
            end = min(end_of_segment(begin), to);
            if (warp_ == 0) {
                Window<factor> r;
                r.start(*this, y_, begin);
                Row row = near<factor>(begin);
                T inverse = inverse_[begin];
#pragma unroll 2
                for (int k = begin; k < end; ++k) {
                    const T y = step(k, r.x[0] * inverse);
                    r.catch_up();
                    r.finish(-y, row);
                    at(y_, k) = y;
                    row = near<factor>(k + 1);  // one row past the end may be read
                    inverse = inverse_[k + 1];
                }
            }
            __syncthreads();
            if (end < to) {
                update<factor, -1>(y_, begin, end, to);
                __syncthreads();
            }
        }
    }

    /// Weights of [from, to) compensated for all columns before `from`: t + y with y R = G.
    __device__ void current_weights(int from, int to) const {
        for (int k = from + warp_; k < to; k += warps) at(y_, k) = at(g_, k);
        __syncthreads();
        solve(from, to, [](int, T y) { return y; });
        for (int k = from + warp_; k < to; k += warps) at(y_, k) += at(t_, k);
        __syncthreads();
    }

    __device__ void store_codes() const {
        for (int k = warp_; k < s_.width && active_; k += warps) {
            s_.codes(k, row_) = static_cast<Code>(to_code(at(y_, k)));
        }
    }

    __device__ void store() const {
        if (!active_) return;
        for (int k = warp_; k < s_.width; k += warps) {
            s_.columns(k, row_) = at(g_, k);
            if constexpr (forwards) s_.forward(k, row_) = at(t_, k);
        }
    }

    const SweepTask<T>& s_;
    SweepMemory<T, M> size_;
    int lane_, warp_;
    Index row_;
    bool active_;  // the row exists
    T* inverse_;   // 1 / R_kk
    T* w_;         // W
    T* g_;         // G, then f
    T* t_;         // T, then a; W unless the target is Forwarded
    T* y_;         // weights that grids are fitted to, then codes
    T* c_ = nullptr;
    T* q_ = nullptr;
    T *near_[2], *far_[2];  // of R and P
};

}  // namespace residua::cuda
