#pragma once

#include <algorithm>
#include <utility>

#include "residua/solver/factorization.hpp"
#include "residua/solver/refine_plan.hpp"

namespace residua::detail {

/// Products with H as a refinement needs them: of blocks of columns with what lies on one side of them, for
/// which a triangle of H is enough, and of blocks on the diagonal, which are kept with both.
template <Real T, Backend<T> B>
class RefinementGram {
  public:
    using Matrix = typename B::template Matrix<T>;
    using Block = RefinementPlan::Block;

    /// In the order `order` of original columns. `factorization` must outlive this.
    RefinementGram(const Factorization<T, B>& factorization, const RefinementPlan& plan,
                   std::span<const Index> order)
        : b_(factorization.backend()), h_(factorization.gram().gram()) {
        std::vector<T> diagonal = factorization.gram().diagonal();
        if (!std::equal(order.begin(), order.end(), factorization.order().begin()))
            reorder(factorization, order, diagonal);
        load_diagonal_blocks(plan, diagonal);
    }

    /// H_BB (columns of the block, columns of the block).
    MatrixView<const T> diagonal_block(const Block& block) const {
        const Index width = block.end - block.begin;
        return diagonal_blocks_.view().block(block.begin, 0, width, width);
    }

    /// C = beta C + H X for rows [begin, end) of H and columns [from, to) on one side of them, x (to - from,
    /// rows).
    void multiply(Index begin, Index end, Index from, Index to, MatrixView<const T> x, T beta,
                  MatrixView<T> c) {
        if (to <= begin) {
            b_.multiply(T(1), Transpose::No, h_.block(begin, from, end - begin, to - from), x, beta, c);
        } else {
            b_.multiply(T(1), Transpose::Yes, h_.block(from, begin, to - from, end - begin), x, beta, c);
        }
    }

    /// C_B += sum of H_BB' X_B' over those blocks B' that a pass visits after B, for each of the adjacent
    /// `blocks`; x, c (their columns, rows).
    void add_later(std::span<const Block> blocks, bool backward, MatrixView<const T> x, MatrixView<T> c) {
        const Index first = blocks.front().begin;
        for (const Block& block : blocks) {
            const Index from = backward ? first : block.end;
            const Index to = backward ? block.begin : blocks.back().end;
            if (from == to) continue;
            multiply(block.begin, block.end, from, to, x.row_range(from - first, to - from), T(1),
                     c.row_range(block.begin - first, block.end - block.begin));
        }
    }

    /// C_B += H_BB X_B for all `blocks`; x, c (in_features, rows).
    void add_diagonal(std::span<const Block> blocks, MatrixView<const T> x, MatrixView<T> c) {
        for (std::size_t i = 0, next = 0; i < blocks.size(); i = next) {
            const Index width = blocks[i].end - blocks[i].begin;
            for (next = i; next < blocks.size() && blocks[next].end - blocks[next].begin == width;) ++next;
            const Index rows = blocks[next - 1].end - blocks[i].begin;
            const auto part = [&](auto view) { return view.row_range(blocks[i].begin, rows); };
            add_block_products(part(std::as_const(diagonal_blocks_).view()), width, part(x), part(c));
        }
    }

  private:
    void reorder(const Factorization<T, B>& f, std::span<const Index> order, std::vector<T>& diagonal) {
        const Index n = h_.rows;
        std::vector<Index> position_of_column(static_cast<std::size_t>(n));
        for (Index p = 0; p < n; ++p)
            position_of_column[static_cast<std::size_t>(f.order()[static_cast<std::size_t>(p)])] = p;
        std::vector<Index> positions;
        for (const Index column : order)
            positions.push_back(position_of_column[static_cast<std::size_t>(column)]);

        Matrix mirrored = b_.template workspace<T>(n, n);
        b_.copy(f.gram().gram(), mirrored.view());
        b_.mirror_lower(mirrored.view());
        reordered_ = b_.template workspace<T>(n, n);
        b_.permute(std::as_const(mirrored).view(), positions, reordered_.view());
        h_ = std::as_const(reordered_).view();
        for (std::size_t k = 0; k < positions.size(); ++k)
            diagonal[k] = f.gram().diagonal()[static_cast<std::size_t>(positions[k])];
    }

    void load_diagonal_blocks(const RefinementPlan& plan, const std::vector<T>& diagonal) {
        diagonal_blocks_ = b_.template workspace<T>(h_.rows, plan.widest_block());
        for (const Block& block : plan.blocks()) {
            const Index width = block.end - block.begin;
            const MatrixView<T> h = diagonal_blocks_.view().block(block.begin, 0, width, width);
            b_.copy(h_.block(block.begin, block.begin, width, width), h);
            b_.mirror_lower(h);
            b_.set_diagonal(h, std::vector<T>(diagonal.begin() + block.begin, diagonal.begin() + block.end));
        }
    }

    /// C_B += H_BB X_B, where B runs over the blocks of `width` rows of all three.
    void add_block_products(MatrixView<const T> h, Index width, MatrixView<const T> x, MatrixView<T> c) {
        if constexpr (requires { b_.add_block_products(h, width, x, c); }) {
            b_.add_block_products(h, width, x, c);
        } else {
            for (Index k = 0; k < c.rows; k += width) {
                b_.multiply(T(1), Transpose::No, h.block(k, 0, width, width), x.row_range(k, width), T(1),
                            c.row_range(k, width));
            }
        }
    }

    B& b_;
    MatrixView<const T> h_;   // in the strict lower triangle
    Matrix reordered_;        // which it is in, in another order
    Matrix diagonal_blocks_;  // (in_features, widest block)
};

}  // namespace residua::detail
