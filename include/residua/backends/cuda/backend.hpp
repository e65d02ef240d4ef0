#pragma once

#include "residua/backends/cuda/accumulation.hpp"
#include "residua/backends/cuda/refine.cuh"
#include "residua/backends/cuda/refit.cuh"
#include "residua/backends/cuda/sweep.cuh"
#include "residua/backends/cuda/transpose.cuh"

namespace residua {

/// The GPU backend: cuBLAS, cuSOLVER and a sweep kernel that quantizes a block of columns in one launch.
///
/// Activations and weights may be in host or device memory; moments, factors, codes and scales are in device
/// memory. Work is ordered on one stream (see CudaContext for what waits), so two backends with streams of
/// their own run side by side. Inputs in pageable memory have been read when a call returns; those in pinned or
/// device memory are read in the order of the stream: they must be there, unchanged, until it has come so far.
/// A backend is for one thread at a time, with its device current.
///
///     residua::CudaBackend gpu;  // or {{.stream = s, .blas = b}}: the engine's own
///     residua::GPTQSolver<float, residua::CudaBackend> solver(gpu, in_features);
///
/// Device API failures throw DeviceError; when memory runs out, DeviceMemoryError.
class CudaBackend : public detail::CudaAccumulation {
  public:
    using detail::CudaAccumulation::CudaAccumulation;

    /// All rows, unless their columns would take more than options().slab_bytes as float, with what Precision::split
    /// keeps beside them.
    Index slab_rows(Index in_features, Index out_features) const {
        const std::size_t element = sizeof(float) * (options().precision == Precision::split ? 2 : 1);
        const Index fit = static_cast<Index>(options().slab_bytes / element) / in_features;
        return std::min(out_features, std::max<Index>(1024, fit / 1024 * 1024));
    }

    template <Real T>
    void add(MatrixView<const T> a, MatrixView<T> c) {
        detail::cuda::visit(stream(), c.rows, c.cols, detail::cuda::Add<T>{a, c, T(1)});
    }

    template <Real T>
    void subtract(MatrixView<const T> a, MatrixView<T> c) {
        detail::cuda::visit(stream(), c.rows, c.cols, detail::cuda::Add<T>{a, c, T(-1)});
    }

    template <Real T>
    void mirror(MatrixView<T> a) {
        detail::cuda::mirror(stream(), a, detail::cuda::Mirror::ToLower);
    }

    template <Real T>
    void mirror_lower(MatrixView<T> a) {
        detail::cuda::mirror(stream(), a, detail::cuda::Mirror::ToUpper);
    }

    template <Real T>
    void transpose_in_place(MatrixView<T> a) {
        detail::cuda::mirror(stream(), a, detail::cuda::Mirror::Swap);
    }

    template <class T>
    std::vector<std::remove_const_t<T>> diagonal(MatrixView<T> a) {
        using U = std::remove_const_t<T>;
        auto values = this->allocate<U>(1, a.rows);
        detail::cuda::visit(stream(), 1, a.rows, detail::cuda::GetDiagonal<U>{a, values.view().data});
        return read(values.view());
    }

    template <Real T>
    void set_diagonal(MatrixView<T> a, const std::vector<T>& d) {
        const auto values = upload(std::span<const T>(d));
        detail::cuda::visit(stream(), 1, a.rows, detail::cuda::SetDiagonal<T>{a, values.view().data});
    }

    template <Real T>
    void permute(MatrixView<const T> a, std::span<const Index> order, MatrixView<T> c) {
        if (is_natural(order)) return copy(a, c);
        const auto indices = upload_indices(order);
        detail::cuda::visit(stream(), c.rows, c.cols, detail::cuda::Permute<T>{a, c, indices.view().data});
    }

    template <Real T>
    void permute_transposed(MatrixView<const T> a, std::span<const Index> order, MatrixView<T> c) {
        if (is_natural(order)) return transpose(a, c);
        const auto indices = upload_indices(order);
        detail::cuda::permute_transposed(stream(), a, indices.view().data, c);
    }

    template <Real T>
    void clear_row(MatrixView<T> a, Index i) {
        set_zero(a.row_range(i, 1));
    }

    template <Real T>
    void clear_column(MatrixView<T> a, Index j) {
        detail::cuda::visit(stream(), 1, a.rows, detail::cuda::ClearColumn<T>{a, j});
    }

    template <Real T>
    double dot(MatrixView<const T> a, MatrixView<const T> c) {
        auto partial = allocate<double>(1, detail::cuda::dot_blocks);
        detail::cuda::dot(stream(), a, c, partial.view().data);
        double sum = 0;
        for (const double s : read(partial.view())) sum += s;
        return sum;
    }

    template <Real T>
    void copy(MatrixView<const T> a, MatrixView<T> c) {
        copy_rows(c.data, c.stride, a.data, a.stride, c.rows, c.cols);
    }

    /// Of weights, and of codes, which need no flag. Host memory is copied in batches of bounded size.
    template <class In, class U>
    void load_columns(MatrixView<const In> weights, std::span<const Index> order, MatrixView<U> c,
                      Code* flag) {
        const auto inverse = is_natural(order) ? Matrix<std::int32_t>() : upload_indices(inverse_of(order));
        const bool host = in_host_memory(weights.data);
        const Index row_bytes = weights.cols * static_cast<Index>(sizeof(In));
        const Index batch =
            host ? std::max<Index>(1, static_cast<Index>(options().batch_bytes) / row_bytes) : weights.rows;
        for (Index r = 0; r < weights.rows; r += batch) {
            const Index rows = std::min(batch, weights.rows - r);
            Matrix<In> near;
            const MatrixView<const In> part = near_device(weights.row_range(r, rows), near);
            detail::cuda::transpose(stream(), part, nullptr, inverse.view().data, c.block(0, r, c.rows, rows),
                                    flag);
        }
    }

    template <class U>
    void store_columns(MatrixView<const U> c, std::span<const Index> order, MatrixView<U> q) {
        const auto inverse = is_natural(order) ? Matrix<std::int32_t>() : upload_indices(inverse_of(order));
        detail::cuda::transpose(stream(), c, inverse.view().data, nullptr, q);
    }

    template <class U>
    void transpose(MatrixView<const U> a, MatrixView<U> c) {
        detail::cuda::transpose(stream(), a, nullptr, nullptr, c);
    }

    template <Real T, Grid<T> G>
    void fit(const G& grid, MatrixView<const T> c, MatrixView<const T> weights,
             std::span<const std::vector<Index>> members, MatrixView<T> scales, MatrixView<T> zeros,
             MatrixView<T> shared = {}) {
        std::vector<Index> columns;
        std::vector<Index> offsets = {0};
        for (const auto& group : members) {
            columns.insert(columns.end(), group.begin(), group.end());
            offsets.push_back(static_cast<Index>(columns.size()));
        }
        const auto device_columns = upload_indices(columns);
        const auto device_offsets = upload_indices(offsets);
        detail::cuda::fit(stream(), grid, c, weights, device_columns.view().data, device_offsets.view().data,
                          static_cast<Index>(members.size()), scales, zeros, shared);
    }

    template <Real T, Grid<T> G>
    void round(const G& grid, MatrixView<const T> c, std::span<const Index> group_of,
               MatrixView<const T> scales, MatrixView<const T> zeros, MatrixView<Code> codes) {
        const auto groups = upload_indices(group_of);
        detail::cuda::visit(stream(), c.rows, c.cols,
                            detail::cuda::Round<T, G>{grid, c, groups.view().data, scales, zeros, codes});
    }

    template <Real T, Grid<T> G>
    void subtract_decoded(const G& grid, MatrixView<const Code> codes, std::span<const Index> group_of,
                          MatrixView<const T> scales, MatrixView<const T> zeros, MatrixView<T> c) {
        const auto groups = upload_indices(group_of);
        detail::cuda::visit(
            stream(), c.rows, c.cols,
            detail::cuda::SubtractDecoded<T, G>{grid, codes, groups.view().data, scales, zeros, c});
    }

    template <Real T, Method M, Grid<T> G>
    void sweep(const M& method, const G& grid, const SweepBlock<T>& block) {
        const Index width = block.end - block.begin;
        const Index extent = block.reach - block.begin;
        detail::cuda::SweepTask<T> task = {};
        task.columns = block.columns.row_range(block.begin, extent);
        task.sums = block.sums;
        task.factor = block.factor.block(block.begin, block.begin, extent, extent);
        if constexpr (M::residuals == Residuals::OfColumnsBefore) {
            task.residuals = block.residuals.row_range(block.begin, width);
            task.residual_matrix = block.residual_matrix.block(block.begin, block.begin, extent, extent);
        }
        task.codes = block.codes.row_range(block.begin, width);
        task.scales = block.scales;
        task.zeros = block.zeros;
        task.shared = block.shared;
        task.published = block.published;
        task.overflow = block.overflow;
        task.width = static_cast<int>(width);
        task.extent = static_cast<int>(extent);
        task.fits = static_cast<int>(block.fits.size());

        const std::vector<std::int32_t> table = sweep_table(block);
        Matrix<std::int32_t> far_table;
        if (table.size() > std::size(task.inline_table)) {
            far_table = upload(std::span<const std::int32_t>(table));
            task.table = far_table.view().data;
        } else {
            std::copy(table.begin(), table.end(), task.inline_table);
        }

        const std::size_t shared_bytes = sweep_shared_bytes<M, G>(block);
        Matrix<T> scratch;
        if (shared_bytes == 0) {
            scratch = allocate<T>(sweep_tiles(block), sweep_memory<M>(block).tile());
            task.scratch = scratch.view().data;
        }
        Matrix<std::uint32_t> trials;
        if (tries_candidates(grid, block)) {
            trials = allocate<std::uint32_t>(sweep_tiles(block), sweep_memory<M>(block).trial_words());
            task.trials = trials.view().data;
        }
        detail::cuda::sweep(stream(), method, grid, task, shared_bytes);
    }

    /// Of device memory, which sweep() takes for itself.
    template <Method M, Real T, Grid<T> G>
    std::size_t sweep_bytes(const G& grid, const SweepBlock<T>& block) const {
        const detail::cuda::SweepMemory<T, M> memory = sweep_memory<M>(block);
        std::size_t bytes = 0;
        if (sweep_shared_bytes<M, G>(block) == 0)
            bytes += static_cast<std::size_t>(memory.tile()) * sizeof(T);
        if (tries_candidates(grid, block))
            bytes += static_cast<std::size_t>(memory.trial_words()) * sizeof(std::uint32_t);
        return static_cast<std::size_t>(sweep_tiles(block)) * bytes;
    }

    /// The most columns of a RefineBlock, as shared memory has it: 128, or 96 in float and 64 in double on cards with
    /// less than 100 KiB.
    template <Real T>
    Index refine_columns() const {
        return detail::cuda::refine_columns_within<T>(most_shared_bytes());
    }

    template <Real T, Grid<T> G>
    void refine(const G& grid, const RefineBlock<T>& block) {
        const Index width = block.end - block.begin;
        detail::cuda::RefineTask<T> task = {};
        task.error = block.error.row_range(block.begin, width);
        task.outside = block.outside.row_range(block.begin, width);
        task.fresh = block.fresh;
        task.gram = block.gram;
        task.codes = block.codes.row_range(block.begin, width);
        task.scales = block.scales;
        task.zeros = block.zeros;
        task.shared = block.shared;
        task.tally = block.tally;
        task.width = static_cast<int>(width);
        task.backward = block.backward;
        task.refits = !block.refits.empty();
        for (Index p = 0; p < width; ++p) {
            const Index k = block.backward ? block.end - 1 - p : block.begin + p;
            const auto group = static_cast<std::int32_t>(block.group_of[static_cast<std::size_t>(k)]);
            if (p == 0 || task.run_group[task.runs - 1] != group) task.run_group[task.runs++] = group;
            task.run_end[task.runs - 1] = static_cast<std::int32_t>(p + 1);
        }
        detail::cuda::refine(stream(), grid, task);
    }

    template <Real T, RefittableGrid<T> G>
    void refit(const G& grid, const RefineGroup<T>& group) {
        detail::cuda::refit(stream(), detail::cuda::RefitScale<T, G>{grid}, group);
    }

    template <Real T, TwoLevelGrid<T> G>
    void share(const G& grid, const RefineFamily<T>& family) {
        const auto groups = upload_indices(family.group_of);
        detail::cuda::share(stream(), grid, family, groups.view().data);
    }

    template <Real T, TwoLevelGrid<T> G>
    void refit_shared(const G& grid, const RefineFamily<T>& family, Number number,
                      const RefineGroup<T>& group) {
        detail::cuda::refit(stream(), detail::cuda::RefitShared<T, G>{grid, family, number}, group);
    }

    template <Real T>
    void add_row_dots(MatrixView<const T> a, MatrixView<const T> c, MatrixView<double> sums) {
        detail::cuda::add_row_dots(stream(), a, c, sums);
    }

  private:
    template <class T>
    static Index sweep_tiles(const SweepBlock<T>& block) {
        return (block.columns.cols + detail::cuda::lanes - 1) / detail::cuda::lanes;
    }

    template <class G, class T>
    static bool tries_candidates(const G& grid, const SweepBlock<T>& block) {
        return ClipSearch(grid.clip).by_loss() && !block.fits.empty();
    }

    template <Method M, class T>
    static detail::cuda::SweepMemory<T, M> sweep_memory(const SweepBlock<T>& block) {
        return {static_cast<int>(block.reach - block.begin), static_cast<int>(block.end - block.begin),
                block.published.view != ResidualView::Compensated};
    }

    /// Of a thread block's tile and its coefficients; 0 where that does not fit, and tiles are kept in device
    /// memory.
    template <Method M, class G, class T>
    static std::size_t sweep_shared_bytes(const SweepBlock<T>& block) {
        if (block.reach - block.begin > 1024) return 0;
        const auto memory = sweep_memory<M>(block);
        const auto bytes = static_cast<std::size_t>(memory.tile() + memory.coefficients()) * sizeof(T);
        return bytes + sizeof(detail::cuda::FitScratch<T, G>) > most_shared_bytes() ? 0 : bytes;
    }

    template <class T>
    static std::vector<std::int32_t> sweep_table(const SweepBlock<T>& block) {
        std::vector<std::int32_t> table(block.group_of.begin() + block.begin,
                                        block.group_of.begin() + block.end);
        for (const GroupRange& group : block.fits) {
            for (const Index value : {group.begin - block.begin, group.end - block.begin, group.id})
                table.push_back(static_cast<std::int32_t>(value));
        }
        return table;
    }

    static bool is_natural(std::span<const Index> order) {
        for (std::size_t p = 0; p < order.size(); ++p) {
            if (order[p] != static_cast<Index>(p)) return false;
        }
        return true;
    }

    static std::vector<Index> inverse_of(std::span<const Index> order) {
        std::vector<Index> inverse(order.size());
        for (std::size_t p = 0; p < order.size(); ++p) inverse[static_cast<std::size_t>(order[p])] = Index(p);
        return inverse;
    }

    static std::size_t most_shared_bytes() {
        int device = 0;
        int bytes = 0;
        detail::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
        detail::cuda::check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                            "cudaDeviceGetAttribute");
        return static_cast<std::size_t>(bytes);
    }
};

static_assert(Backend<CudaBackend, float> && Backend<CudaBackend, double>);

}  // namespace residua
