#pragma once

#include <cuda_pipeline.h>

#include "residua/backends/cuda/fit.cuh"
#include "residua/backends/cuda/vector.cuh"
#include "residua/backends/sweep_block.hpp"
#include "residua/methods/method.hpp"

/// The sweep over one SweepBlock, right-looking, for all output rows in one launch.
///
/// A thread block takes 32 output rows, one per lane. Columns go in segments of 32: the first warp quantizes a
/// segment, one column after the other, with the sums of its columns in registers (Window); then all warps add
/// the finished columns to the sums of those behind the segment (update).
namespace residua::detail::cuda {

/// What a sweep is told. Views start at the first column of the block.
template <class T>
struct SweepTask {
    static constexpr int inline_entries = 1536;

    MatrixView<T> columns, residuals;             // (extent, rows)
    MatrixView<const T> sums;                     // (extent, rows)
    MatrixView<const T> factor, residual_matrix;  // (extent, extent)
    MatrixView<Code> codes;                       // (width, rows)
    MatrixView<T> scales, zeros;                  // (groups, rows)
    MatrixView<const T> shared;                   // (2, rows) of the family whose groups are searched
    PublishedBehaviour published;
    Code* overflow;
    int width;                  // columns to quantize
    int extent;                 // columns that fits reach
    int fits;                   // groups to fit
    T* scratch;                 // tiles of all thread blocks, where shared memory is too small for one
    std::uint32_t* trials;      // codes of candidates, SweepMemory::trial_words() for each thread block
    const std::int32_t* table;  // in device memory if it is too long for a kernel's parameters
    std::int32_t inline_table[inline_entries];

    __device__ int entry(int i) const { return table ? table[i] : inline_table[i]; }
    __device__ int group_of(int k) const { return entry(k); }
    __device__ int fit_begin(int f) const { return entry(width + 3 * f); }
    __device__ int fit_end(int f) const { return entry(width + 3 * f + 1); }
    __device__ int fit_id(int f) const { return entry(width + 3 * f + 2); }
};

/// What a thread block keeps, in elements.
///
/// Coefficients C_ij, j > i, of R and M are kept twice: `near` holds the 31 that follow the diagonal of each
/// row, `far` those right of the row's own 32 x 32 block, row blocks one after the other. Rows of `far` are
/// padded by a quad, so that columns of it lie in different banks.
template <class T, class M>
struct SweepMemory {
    static constexpr bool forwards = M::residuals == Residuals::OfColumnsBefore;

    int extent, width;
    bool two_views;

    __host__ __device__ int leading() const { return (extent + lanes - 1) / lanes * lanes; }
    __host__ __device__ int array() const { return extent * lanes; }
    __host__ __device__ int tile() const {
        return 2 * leading() + array() * (3 + (forwards ? 1 : 0) + (two_views ? 2 : 0));
    }
    /// Four codes a word, for every warp.
    __host__ __device__ int trial_words() const { return (extent + 3) / 4 * lanes * warps; }
    __host__ __device__ int near(int i) const { return i * lanes; }
    __host__ __device__ int far_length(int block) const { return leading() - lanes * (block + 1) + 4; }
    __host__ __device__ int far_block(int block) const {
        return lanes * block * (leading() + 4) - lanes * lanes / 2 * block * (block + 1);
    }
    __host__ __device__ int far(int i, int j) const {
        const int block = i / lanes;
        return far_block(block) + i % lanes * far_length(block) + j - lanes * (block + 1);
    }
    __host__ __device__ int triangle() const { return near(leading()) + far_block(leading() / lanes); }
    __host__ __device__ int coefficients() const { return triangle() * (forwards ? 2 : 1); }
};

// Parts of SweepTile, in functions of their own: sums of a segment take most of the registers, in the sweep as in the
// search for scales, and one compiled into the other spills those of both.
template <class T, class M, class G, bool Shared>
__device__ __noinline__ void fit_group(const M& method, const G& grid, const SweepTask<T>& task,
                                       FitScratch<T, G>& fit_scratch, int f);
template <class T, class M, class G, bool Shared>
__device__ __noinline__ T group_loss(const M& method, const G& grid, const SweepTask<T>& task,
                                     FitScratch<T, G>& fit_scratch, int begin, int end, GridParams<T> params);

/// \tparam Shared  whether a thread block keeps its tile in shared memory, or in SweepTask::scratch
template <class T, class M, class G, bool Shared>
class SweepTile {
  public:
    __device__ SweepTile(const M& method, const G& grid, const SweepTask<T>& task, T* memory,
                         FitScratch<T, G>& fit_scratch)
        : method_(method),
          grid_(grid),
          s_(task),
          fit_scratch_(fit_scratch),
          size_{task.extent, task.width, task.published.view != ResidualView::Compensated},
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
        if constexpr (forwards) a_ = take(size_.array());
        if (size_.two_views) {
            c_ = take(size_.array());
            q_ = take(size_.array());
        }
        weight_ = take(size_.leading());
        for (int c = 0; Shared && c < (forwards ? 2 : 1); ++c) {
            near_[c] = take(size_.near(size_.leading()));
            far_[c] = take(size_.triangle() - size_.near(size_.leading()));
        }
    }

    __device__ void run() {
        load();
        int next = 0;
        if constexpr (!TwoLevelGrid<G, T>) {
            if (s_.published.scales == GroupScales::Stale && s_.fits > 0) {
                current_weights(0, s_.extent);
                for (; next < s_.fits; ++next)
                    fit_group<T, M, G, Shared>(method_, grid_, s_, fit_scratch_, next);
            }
        }
        for (int from = 0, to = 0; from < s_.width; from = to) {
            if (next < s_.fits && s_.fit_begin(next) == from) {
                current_weights(from, s_.fit_end(next));
                fit_group<T, M, G, Shared>(method_, grid_, s_, fit_scratch_, next++);
            }
            to = min(end_of_segment(from), s_.width);
            if (next < s_.fits) to = min(to, s_.fit_begin(next));
            if (warp_ == 0) quantize(from, to);
            __syncthreads();
            if (to == s_.width) break;
            update<forwards>(g_, from, to, s_.extent);
            __syncthreads();
        }
        for (int k = warp_; k < s_.width && active_; k += warps)
            s_.codes(k, row_) = static_cast<Code>(detail::to_code(at(y_, k)));
        if (size_.two_views) change_view();
        store();
        if (!finite_) *s_.overflow = 1;
    }

    /// The grid of group f, to the weights in y; or the codes of one that was fitted with its family.
    __device__ void fit(int f) const {
        const int begin = s_.fit_begin(f);
        const int count = s_.fit_end(f) - begin;
        const int id = s_.fit_id(f);
        const auto column = [&](int i) { return at(y_, begin + i); };
        const auto weight = [&](int i) { return weight_[begin + i]; };
        GridParams<T> params = {T(1), T(0)};
        if constexpr (TwoLevelGrid<G, T>) {
            GridParams<T> shared = {T(1), T(0)};
            if (active_) params = {s_.scales(id, row_), s_.zeros(id, row_)};
            if (active_) shared = {s_.shared(0, row_), s_.shared(1, row_)};
            using Group = GroupOfFamily<T, G, decltype(column), decltype(weight)>;
            const Group group(grid_, count, column, weight);
            const CodeSearch<T, G, Group> search(grid_, group, params, shared);
            search.screen(fit_scratch_, warp_, lane_);
            rank_candidates(fit_scratch_, search.count(), warp_, lane_);
            params = search_loss(search, begin, begin + count);
        } else {
            T low, high;
            find_range(count, column, fit_scratch_, warp_, lane_, low, high);
            params = fit_by_norm(grid_, count, column, low, high, fit_scratch_, warp_, lane_);
            if (ClipSearch(grid_.clip).by_loss()) {
                const Shortlist<T, G> shortlist(grid_, low, high, params, fit_scratch_, warp_, lane_);
                shortlist.screen(count, column, weight);
                rank_candidates(fit_scratch_, shortlist.count(), warp_, lane_);
                params = search_loss(shortlist, begin, begin + count);
            }
        }
        if (warp_ == 0 && active_) {
            s_.scales(id, row_) = params.scale;
            s_.zeros(id, row_) = params.zero;
        }
        __syncthreads();
    }

    /// What the columns [begin, end), with their current weights in y, lose with these parameters:
    /// sum_k R_kk^2 (c_k - q_k)^2 of the recurrence over them alone. Each warp by itself.
    ///
    /// The sums of a segment's columns are in registers. Columns of earlier segments are added to them with what they
    /// feed back, y - q, made anew from their codes, which take a quarter of its memory.
    __device__ T group_loss(int begin, int end, GridParams<T> params) const {
        std::uint32_t* const codes =
            s_.trials + (Index(blockIdx.x) * warps + warp_) * (size_.trial_words() / warps) + lane_;
        const G grid = grid_;  // what it is made of does not change where codes are stored
        T loss = T(0);
        for (int from = begin, to = begin; from < end; from = to) {
            to = min(end_of_segment(from), end);
            Window<false> sums;
            sums.clear();
            for (int first = begin, last = begin; first < from; first = last) {
                last = end_of_segment(first);
                const T* r_quad = Shared ? far_[factor] + size_.far(first, from) : nullptr;
                const int length = size_.far_length(first / segment);
#pragma unroll(Shared ? 4 : 1)
                for (int i = first; i < last; ++i, r_quad += length) {
                    const int code = static_cast<int>(codes[(i >> 2) * lanes] >> 8 * (i & 3) & 0xffu);
                    const T f = at(y_, i) - grid.decode(code, params);
#pragma unroll
                    for (int j = 0; j < segment; j += 4) {
                        const Quad r = far<factor>(Shared ? r_quad + j : nullptr, i, from + j);
#pragma unroll
                        for (int v = 0; v < 4; ++v) sums.x[j + v] += f * r.v[v];
                    }
                }
            }

            std::uint32_t word = 0;
            T inverse = inverse_[from];
            T w = at(y_, from);
#pragma unroll 2
            for (int k = from; k < to; ++k) {
                const T c = w + sums.x[0] * inverse;
                const Row row = near<factor>(k);
                inverse = inverse_[k + 1];  // one past the end may be read, here and of y
                const T next_w = at(y_, k + 1);
                sums.catch_up();
                const int code = grid.encode(c, params);
                const T q = grid.decode(code, params);
                sums.finish(w - q, row);
                loss += weight_[k] * ((c - q) * (c - q));
                word = word >> 8 | static_cast<std::uint32_t>(code) << 24;
                if ((k & 3) == 3) codes[(k >> 2) * lanes] = word;
                w = next_w;
            }
        }
        return loss;
    }

  private:
    static constexpr bool forwards = M::residuals == Residuals::OfColumnsBefore;
    static constexpr int segment = lanes;
    static constexpr int factor = 0;
    static constexpr int residual = 1;
    using Quad = Vector<T, 4>;

    /// Coefficients (k, k + 1) ... (k, k + 31); 0 beyond the tile.
    struct Row {
        Quad quads[segment / 4];
        __device__ T operator[](int j) const { return quads[j / 4].v[j % 4]; }
    };

    __device__ static int end_of_segment(int k) { return k / segment * segment + segment; }
    __device__ T& at(T* array, int k) const { return array[k * lanes + lane_]; }

    template <int C>
    __device__ T coefficient(int i, int j) const {
        return C == residual ? s_.residual_matrix(j, i) : s_.factor(i, j);
    }

    template <int C>
    __device__ Row near(int k) const {
        Row row;
#pragma unroll
        for (int j = 0; j < segment; j += 4) {
            if constexpr (Shared) {
                row.quads[j / 4] = *reinterpret_cast<const Quad*>(near_[C] + size_.near(k) + j);
            } else {
                for (int v = j; v < j + 4; ++v)
                    row.quads[j / 4].v[v % 4] = k + 1 + v < s_.extent ? coefficient<C>(k, k + 1 + v) : T(0);
            }
        }
        return row;
    }

    /// C_ij ... C_i,j+3, which `quad` points to in shared memory, for j in a later segment than i.
    template <int C>
    __device__ Quad far(const T* quad, int i, int j) const {
        if constexpr (Shared) {
            return *reinterpret_cast<const Quad*>(quad);
        } else {
            Quad values;
            for (int v = 0; v < 4; ++v) values.v[v] = coefficient<C>(i, min(j + v, s_.extent - 1));
            return values;
        }
    }

    __device__ void fetch(T* to, const T* from) const {
        if constexpr (Shared) {
            __pipeline_memcpy_async(to, from, sizeof(T));
        } else {
            *to = *from;
        }
    }

    __device__ void load_coefficients() {
        for (int i = warp_; i < s_.extent; i += warps) {
            const bool inside = lane_ < segment - 1 && i + 1 + lane_ < s_.extent;
            T* const near = near_[factor] + size_.near(i) + lane_;
            if (inside) {
                fetch(near, &s_.factor(i, i + 1 + lane_));
            } else {
                *near = T(0);
            }
            for (int j = end_of_segment(i) + lane_; j < s_.extent; j += lanes)
                fetch(far_[factor] + size_.far(i, j), &s_.factor(i, j));
            if constexpr (forwards) {
                if (!inside) near_[residual][size_.near(i) + lane_] = T(0);
                for (int k = lane_; k < min(i, s_.width); k += lanes) {
                    const T* const source = &s_.residual_matrix(i, k);
                    if (i - k < segment) fetch(near_[residual] + size_.near(k) + i - k - 1, source);
                    if (i >= end_of_segment(k)) fetch(far_[residual] + size_.far(k, i), source);
                }
            }
        }
    }

    __device__ void load() {
        if constexpr (Shared) load_coefficients();
        for (int k = warp_; k < s_.extent; k += warps) {
            if (active_) {
                fetch(&at(w_, k), &s_.columns(k, row_));
                fetch(&at(g_, k), &s_.sums(k, row_));
            } else {
                at(w_, k) = T(0);
                at(g_, k) = T(0);
            }
        }
        if constexpr (Shared) __pipeline_commit();
        for (int k = threadIdx.x; k < s_.extent; k += lanes * warps) {
            const T r = s_.factor(k, k);
            const T relative = r / s_.factor(0, 0);  // squares of R_kk themselves may overflow
            inverse_[k] = T(1) / r;
            weight_[k] = relative * relative;
        }
        if constexpr (Shared) __pipeline_wait_prior(0);
        __syncthreads();
    }

    /// X_j += sum_{from <= i < to} X_i R_ij, and a_i M_ij if `WithResiduals`, for to <= j < end; [from, to) lies
    /// in one segment.
    template <bool WithResiduals>
    __device__ void update(T* x, int from, int to, int end) const {
        const int aligned = end_of_segment(to - 1);
        for (int j = to + warp_; j < min(aligned, end); j += warps) {
            T sum = T(0);
            for (int i = from; i < to; ++i) {
                const int near = size_.near(i) + j - i - 1;
                sum += at(x, i) * (Shared ? near_[factor][near] : coefficient<factor>(i, j));
                if constexpr (WithResiduals)
                    sum += at(a_, i) * (Shared ? near_[residual][near] : coefficient<residual>(i, j));
            }
            at(x, j) += sum;
        }
        const int length = size_.far_length(from / segment);
        for (int j = aligned + 4 * warp_; j < end; j += 4 * warps) {
            const T* r_quad = Shared ? far_[factor] + size_.far(from, j) : nullptr;
            const T* m_quad = Shared && WithResiduals ? far_[residual] + size_.far(from, j) : nullptr;
            T sum[4] = {};
#pragma unroll 8
            for (int i = from; i < to; ++i, r_quad += length, m_quad += length) {
                const T xi = at(x, i);
                const Quad r = far<factor>(r_quad, i, j);
#pragma unroll
                for (int v = 0; v < 4; ++v) sum[v] += xi * r.v[v];
                if constexpr (WithResiduals) {
                    const T ai = at(a_, i);
                    const Quad m = far<residual>(m_quad, i, j);
#pragma unroll
                    for (int v = 0; v < 4; ++v) sum[v] += ai * m.v[v];
                }
            }
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                if (j + v < end) at(x, j + v) += sum[v];
            }
        }
    }

    /// Sums of the columns of a segment that are not finished yet, in registers. What the last finished column
    /// adds to them is added only while the next one is worked on, so that it fills the gaps of a long chain.
    template <bool WithResiduals>
    struct Window {
        T x[segment];          // x[j]: column k + j; x[0] complete, the others without column k - 1
        Row r, m;              // R and M of column k - 1
        T f = T(0), a = T(0);  // its terms

        __device__ void start(const SweepTile& tile, T* array, int from) {
            clear();
#pragma unroll
            for (int j = 0; j < segment; ++j)
                if (from + j < tile.s_.extent) x[j] = tile.at(array, from + j);
        }

        __device__ void clear() {
#pragma unroll
            for (int j = 0; j < segment; ++j) {
                x[j] = T(0);
                r.quads[j / 4].v[j % 4] = T(0);
                if constexpr (WithResiduals) m.quads[j / 4].v[j % 4] = T(0);
            }
        }

        /// Adds column k - 1 to those behind column k, which then are x[0] ...
        __device__ void catch_up() {
#pragma unroll
            for (int j = 0; j + 1 < segment; ++j) {
                x[j] = x[j + 1] + f * r[j + 1];
                if constexpr (WithResiduals) x[j] += a * m[j + 1];
            }
        }

        /// Column k has the residual `value`.
        __device__ void add_residual(T value, const Row& row) {
            x[0] += value * row[0];
            a = value;
            m = row;
        }

        /// Column k feeds `value` back: completes column k + 1.
        __device__ void finish(T value, const Row& row) {
            x[0] += value * row[0];
            f = value;
            r = row;
        }
    };

    /// In y, for columns [from, to): y_k = step(k, r_k / R_kk), r_k = y_k - sum_{from <= i < k} y_i R_ik.
    /// Left behind with the sign changed.
    template <class Step>
    __device__ void solve(int from, int to, Step step) const {
        for (int begin = from, end = from; begin < to; begin = end) {
            end = min(end_of_segment(begin), to);
            if (warp_ == 0) {
                Window<false> sums;
                sums.start(*this, y_, begin);
                Row row = near<factor>(begin);
                T inverse = inverse_[begin];
#pragma unroll 2
                for (int k = begin; k < end; ++k) {
                    const T minus_y = -step(k, sums.x[0] * inverse);
                    sums.catch_up();
                    sums.finish(minus_y, row);
                    at(y_, k) = minus_y;
                    row = near<factor>(k + 1);  // one row past the end may be read
                    inverse = inverse_[k + 1];
                }
            }
            __syncthreads();
            if (end < to) {
                update<false>(y_, begin, end, to);
                __syncthreads();
            }
        }
    }

    /// In y, for columns [from, to): w + z, z R = G, the weights compensated for all columns before `from`.
    __device__ void current_weights(int from, int to) const {
        for (int k = from + warp_; k < to; k += warps) at(y_, k) = at(g_, k);
        __syncthreads();
        solve(from, to, [](int, T z) { return z; });
        for (int k = from + warp_; k < to; k += warps) at(y_, k) = at(w_, k) - at(y_, k);
        __syncthreads();
    }

    /// Of the survivors of a search by loss the one with the least loss, every warp with its share of them. The warp
    /// that found it says what its parameters are: made anew, they might be rounded in another way.
    template <class Candidates>
    __device__ GridParams<T> search_loss(const Candidates& candidates, int begin, int end) const {
        const int survivors = min(ClipSearch(grid_.clip).survivors, candidates.count());
        T least = std::numeric_limits<T>::infinity();
        int best = -1;
        GridParams<T> found = {T(1), T(0)};
        for (int place = warp_; place < survivors; place += warps) {
            const GridParams<T> params = candidates.params(fit_scratch_.ranked[place][lane_]);
            const T loss =
                cuda::group_loss<T, M, G, Shared>(method_, grid_, s_, fit_scratch_, begin, end, params);
            if (place == 0 || loss < least) {
                least = loss;
                best = place;
                found = params;
            }
        }
        const int own = best;
        least_of_warps(fit_scratch_, least, best, warp_, lane_);
        if (own == best) {
            fit_scratch_.high[0][lane_] = found.scale;
            fit_scratch_.high[1][lane_] = found.zero;
        }
        __syncthreads();
        return {fit_scratch_.high[0][lane_], fit_scratch_.high[1][lane_]};
    }

    /// Columns [from, to) of one segment, by the first warp: f in place of G, a, and codes in y.
    __device__ void quantize(int from, int to) {
        // bit i: column from + i is of another group than the one before
        const int mine = s_.group_of(min(from + lane_, to - 1));
        const int before = __shfl_up_sync(0xffffffffu, mine, 1);
        const unsigned starts = __ballot_sync(0xffffffffu, mine != (lane_ == 0 ? group_ : before));
        Window<forwards> sums;
        sums.start(*this, g_, from);
        for (int begin = from, end = from; begin < to; begin = end) {
            if (starts >> (begin - from) & 1u) {
                group_ = __shfl_sync(0xffffffffu, mine, begin - from);
                if (active_) params_ = {s_.scales(group_, row_), s_.zeros(group_, row_)};
            }
            const unsigned later = begin - from == lanes - 1 ? 0 : starts >> (begin - from + 1);
            end = later ? min(to, begin + __ffs(static_cast<int>(later))) : to;
            if (size_.two_views) {
                quantize_group<true>(begin, end, sums);
            } else {
                quantize_group<false>(begin, end, sums);
            }
        }
    }

    template <bool TwoViews>
    __device__ void quantize_group(int begin, int end, Window<forwards>& sums) {
        T inverse = inverse_[begin];
        T w = at(w_, begin);
#pragma unroll 2
        for (int k = begin; k < end; ++k) {
            const T c = w + sums.x[0] * inverse;
            const Row row = near<factor>(k);
            inverse = inverse_[k + 1];  // one past the end may be read
            const T next_w = at(w_, k + 1);
            sums.catch_up();
            if constexpr (forwards) {
                const T a = method_.residual(c, w);
                sums.add_residual(a, near<residual>(k));
                at(a_, k) = a;
            }
            finite_ = finite_ && detail::is_finite(c);
            const int code = grid_.encode(c, params_);
            const T q = grid_.decode(code, params_);
            const T f = w - method_.fed_back(q, c, w);
            sums.finish(f, row);
            at(g_, k) = f;
            at(y_, k) = detail::from_code<T>(code);
            if constexpr (TwoViews) {
                at(c_, k) = c;
                at(q_, k) = q;
            }
            w = next_w;
        }
    }

    /// Replaces v = c by the view v' that later blocks have, of which the block's own columns know nothing:
    /// a becomes a', and f becomes f + z with z R = (s - s') diag(R) + (a - a') triu(M, strict).
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
            return s_.published.view == ResidualView::Quantized ? at(q_, k)
                                                                : detail::clamp(at(c_, k), low, high);
        };
        for (int k = warp_; k < s_.width; k += warps) {
            T sum = T(0);
            if constexpr (forwards) {
                for (int i = 0; i < k; ++i)
                    sum += (at(a_, i) - method_.residual(later(i), at(w_, i))) * coefficient<residual>(i, k);
            }
            at(y_, k) = sum;
        }
        __syncthreads();
        solve(0, s_.width, [&](int k, T z) {
            const T w = at(w_, k);
            return z + method_.fed_back(at(q_, k), at(c_, k), w) - method_.fed_back(at(q_, k), later(k), w);
        });
        for (int k = warp_; k < s_.width; k += warps) {
            at(g_, k) -= at(y_, k);
            if constexpr (forwards) at(a_, k) = method_.residual(later(k), at(w_, k));
        }
        __syncthreads();
    }

    __device__ void store() const {
        if (!active_) return;
        for (int k = warp_; k < s_.width; k += warps) {
            s_.columns(k, row_) = at(g_, k);
            if constexpr (forwards) s_.residuals(k, row_) = at(a_, k);
        }
    }

    const M& method_;
    const G& grid_;
    const SweepTask<T>& s_;
    FitScratch<T, G>& fit_scratch_;
    SweepMemory<T, M> size_;
    int lane_, warp_;
    Index row_;
    bool active_;  // the row exists
    bool finite_ = true;
    int group_ = -1;
    GridParams<T> params_ = {T(1), T(0)};
    T* inverse_;  // 1 / R_kk
    T* weight_;   // R_kk^2, up to a common factor
    T* w_;        // w
    T* g_;        // G, then f
    T* y_;        // weights that grids are fitted to, then codes
    T* a_ = nullptr;
    T* c_ = nullptr;
    T* q_ = nullptr;
    T *near_[2], *far_[2];  // of R and M
};

/// The tile of this thread block.
template <class T, class M, class G, bool Shared>
__device__ SweepTile<T, M, G, Shared> tile_of_block(const M& method, const G& grid, const SweepTask<T>& task,
                                                    FitScratch<T, G>& fit_scratch) {
    extern __shared__ __align__(16) unsigned char memory[];
    return {method, grid, task, reinterpret_cast<T*>(memory), fit_scratch};
}

template <class T, class M, class G, bool Shared>
__device__ void fit_group(const M& method, const G& grid, const SweepTask<T>& task,
                          FitScratch<T, G>& fit_scratch, int f) {
    tile_of_block<T, M, G, Shared>(method, grid, task, fit_scratch).fit(f);
}

template <class T, class M, class G, bool Shared>
__device__ T group_loss(const M& method, const G& grid, const SweepTask<T>& task,
                        FitScratch<T, G>& fit_scratch, int begin, int end, GridParams<T> params) {
    return tile_of_block<T, M, G, Shared>(method, grid, task, fit_scratch).group_loss(begin, end, params);
}

template <class T, class M, class G, bool Shared>
__global__ void __launch_bounds__(lanes* warps,
                                  M::residuals == Residuals::OfColumnsBefore || sizeof(T) > 4 ? 1 : 2)
    sweep_kernel(const __grid_constant__ M method, const __grid_constant__ G grid,
                 const __grid_constant__ SweepTask<T> task) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ FitScratch<T, G> fit_scratch;
    SweepTile<T, M, G, Shared>(method, grid, task, reinterpret_cast<T*>(memory), fit_scratch).run();
}

/// `shared_bytes`: of the tile and its coefficients, 0 to keep the tile in task.scratch.
template <class T, class M, class G>
void sweep(cudaStream_t stream, const M& method, const G& grid, const SweepTask<T>& task,
           std::size_t shared_bytes) {
    const unsigned blocks = static_cast<unsigned>((task.columns.cols + lanes - 1) / lanes);
    if (shared_bytes > 0) {
        check(cudaFuncSetAttribute(sweep_kernel<T, M, G, true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              "cudaFuncSetAttribute");
        sweep_kernel<T, M, G, true><<<blocks, lanes * warps, shared_bytes, stream>>>(method, grid, task);
    } else {
        sweep_kernel<T, M, G, false><<<blocks, lanes * warps, 0, stream>>>(method, grid, task);
    }
    check_launch("sweep_kernel");
}

}  // namespace residua::detail::cuda
