#pragma once

#include "residua/backends/backend.hpp"
#include "residua/backends/host/matrices.hpp"
#include "residua/backends/host/refine.hpp"
#include "residua/backends/host/refit.hpp"
#include "residua/backends/host/sweep.hpp"
#include "residua/grids/group_size.hpp"

namespace residua {

/// Everything of the Backend concept that is not dense linear algebra, for matrices in host memory.
///
/// Derive from it to bring your own linear algebra: cholesky_upper, multiply, solve_upper,
/// solve_upper_transposed, accumulate_gram and accumulate_cross (EigenBackend is such a class).
class HostBackend : public detail::HostMatrices {
  public:
    using detail::HostMatrices::HostMatrices;

    /// Enough rows for every thread to have several tiles; little memory next to H.
    Index slab_rows(Index, Index out_features) const {
        return std::min(out_features, std::max<Index>(1024, 512 * executor().threads()));
    }

    /// Of weights, and of codes, which need no flag.
    template <class In, class U>
    void load_columns(MatrixView<const In> weights, std::span<const Index> order, MatrixView<U> c,
                      Code* flag) {
        transpose_tiles<U>(
            weights.rows, weights.cols,
            [&](Index r, Index first, Index count, U* values) {
                const In* source = weights.row(r);
                const Index* column = order.data() + first;
                for (Index k = 0; k < count; ++k) values[k] = static_cast<U>(source[column[k]]);
                if constexpr (Real<U>) {
                    int finite = 1;
                    for (Index k = 0; k < count; ++k) finite &= detail::is_finite(values[k]);
                    if (!finite && flag) detail::raise_flag(flag);
                }
            },
            [&](Index k, Index first, Index count, const U* values) {
                std::copy_n(values, count, c.row(k) + first);
            });
    }

    template <class U>
    void store_columns(MatrixView<const U> c, std::span<const Index> order, MatrixView<U> q) {
        transpose_tiles<U>(
            c.rows, c.cols,
            [&](Index k, Index first, Index count, U* values) {
                std::copy_n(c.row(k) + first, count, values);
            },
            [&](Index r, Index first, Index count, const U* values) {
                U* target = q.row(r);
                for (Index k = 0; k < count; ++k)
                    target[order[static_cast<std::size_t>(first + k)]] = values[k];
            });
    }

    template <Real T, Grid<T> G>
    void fit(const G& grid, MatrixView<const T> c, MatrixView<const T> weights,
             std::span<const std::vector<Index>> members, MatrixView<T> scales, MatrixView<T> zeros,
             MatrixView<T> shared = {}) {
        constexpr Index L = detail::lanes::width<T>;
        const Index count = static_cast<Index>(members.size());
        const Index family = detail::family_of(grid);
        row_tiles<T>(c.cols, [&](Index first, Index active) {
            std::vector<T> scale(static_cast<std::size_t>(family * L));
            std::vector<T> zero(scale.size());
            std::vector<T> sums(static_cast<std::size_t>(family));
            std::vector<T> values;
            std::vector<T> weights_of;
            for (Index begin = 0; begin < count; begin += family) {
                const Index end = std::min(count, begin + family);
                for (Index g = begin; g < end; ++g) {
                    const std::vector<Index>& group = members[static_cast<std::size_t>(g)];
                    const Index size = static_cast<Index>(group.size());
                    values.resize(static_cast<std::size_t>(size * L));
                    weights_of.resize(group.size());
                    for (Index i = 0; i < size; ++i) {
                        const Index k = group[static_cast<std::size_t>(i)];
                        detail::lanes::load<L>(c.row(k) + first, active, values.data() + i * L);
                        weights_of[static_cast<std::size_t>(i)] = weights.data ? weights(0, k) : T(1);
                    }
                    const auto column = [&](Index i) { return values.data() + i * L; };
                    T* const to_scale = scale.data() + (g - begin) * L;
                    T* const to_zero = zero.data() + (g - begin) * L;
                    if constexpr (TwoLevelGrid<G, T>) {
                        sums[static_cast<std::size_t>(g - begin)] = detail::lanes::fit_one_of_family<L>(
                            grid, size, column, weights_of.data(), to_scale, to_zero);
                    } else {
                        detail::lanes::fit<L>(grid, size, column, weights_of.data(), to_scale, to_zero);
                    }
                }
                if constexpr (TwoLevelGrid<G, T>) {
                    alignas(64) T numbers[2 * L];
                    detail::lanes::settle<L>(grid, static_cast<int>(end - begin), sums.data(), scale.data(),
                                             zero.data(), numbers);
                    for (Index i = 0; i < 2 && shared.data; ++i)
                        std::copy_n(numbers + i * L, active, shared.row(2 * (begin / family) + i) + first);
                }
                for (Index g = begin; g < end; ++g) {
                    std::copy_n(scale.data() + (g - begin) * L, active, scales.row(g) + first);
                    std::copy_n(zero.data() + (g - begin) * L, active, zeros.row(g) + first);
                }
            }
        });
    }

    template <Real T, Grid<T> G>
    void round(const G& grid, MatrixView<const T> c, std::span<const Index> group_of,
               MatrixView<const T> scales, MatrixView<const T> zeros, MatrixView<Code> codes) {
        rows(c.rows, [&](Index k) {
            const Index g = group_of[static_cast<std::size_t>(k)];
            for (Index r = 0; r < c.cols; ++r) {
                codes(k, r) =
                    static_cast<Code>(grid.encode(c(k, r), GridParams<T>{scales(g, r), zeros(g, r)}));
            }
        });
    }

    template <Real T, Grid<T> G>
    void subtract_decoded(const G& grid, MatrixView<const Code> codes, std::span<const Index> group_of,
                          MatrixView<const T> scales, MatrixView<const T> zeros, MatrixView<T> c) {
        rows(c.rows, [&](Index k) {
            const Index g = group_of[static_cast<std::size_t>(k)];
            for (Index r = 0; r < c.cols; ++r) {
                c(k, r) -= grid.decode(codes(k, r), GridParams<T>{scales(g, r), zeros(g, r)});
            }
        });
    }

    template <Real T, Method M, Grid<T> G>
    void sweep(const M& method, const G& grid, const SweepBlock<T>& block) {
        const Index extent = block.reach - block.begin;
        std::vector<T> factor_transposed(static_cast<std::size_t>(extent * extent));
        for (Index j = 0; j < extent; ++j) {
            T* column = factor_transposed.data() + j * extent;
            for (Index i = 0; i < j; ++i) column[i] = block.factor(block.begin + i, block.begin + j);
        }
        constexpr Index task_rows = 4 * detail::lanes::width<T>;
        tasks((block.columns.cols + task_rows - 1) / task_rows, [&](Index t) {
            detail::SweepTile<T, M, G> tile(method, grid, block, factor_transposed.data());
            const Index last = std::min(block.columns.cols, (t + 1) * task_rows);
            for (Index first = t * task_rows; first < last; first += detail::lanes::width<T>) {
                tile.run(first, std::min(detail::lanes::width<T>, last - first));
            }
        });
    }

    template <Real T, Grid<T> G>
    void refine(const G& grid, const RefineBlock<T>& block) {
        constexpr Index task_rows = 4 * detail::lanes::width<T>;
        const Index rows = block.error.cols;
        tasks((rows + task_rows - 1) / task_rows, [&](Index t) {
            detail::RefineTile<T, G> tile(grid, block);
            const Index last = std::min(rows, (t + 1) * task_rows);
            for (Index first = t * task_rows; first < last; first += detail::lanes::width<T>) {
                tile.run(first, std::min(detail::lanes::width<T>, last - first));
            }
        });
    }

    template <Real T, RefittableGrid<T> G>
    void refit(const G& grid, const RefineGroup<T>& group) {
        row_tiles<T>(group.error.cols,
                     [&](Index first, Index active) { detail::lanes::refit(grid, group, first, active); });
    }

    template <Real T, TwoLevelGrid<T> G>
    void share(const G& grid, const RefineFamily<T>& family) {
        row_tiles<T>(family.codes.cols,
                     [&](Index first, Index active) { detail::lanes::share(grid, family, first, active); });
    }

    template <Real T, TwoLevelGrid<T> G>
    void refit_shared(const G& grid, const RefineFamily<T>& family, Number number,
                      const RefineGroup<T>& group) {
        row_tiles<T>(group.error.cols, [&](Index first, Index active) {
            detail::lanes::refit_shared(grid, family, number, group, first, active);
        });
    }

    template <Real T>
    void add_row_dots(MatrixView<const T> a, MatrixView<const T> c, MatrixView<double> sums) {
        row_tiles<T>(a.cols, [&](Index first, Index active) {
            for (Index k = 0; k < a.rows; ++k) {
                for (Index r = first; r < first + active; ++r)
                    sums(0, r) += double(a(k, r)) * double(c(k, r));
            }
        });
    }

  private:
    template <Real T, class Body>
    void row_tiles(Index count, Body body) const {
        constexpr Index L = detail::lanes::width<T>;
        tasks((count + L - 1) / L, [&](Index t) { body(t * L, std::min(L, count - t * L)); });
    }
};

}  // namespace residua
