#pragma once

#include <span>

#include "residua/core/ordering.hpp"
#include "residua/core/view.hpp"

namespace residua {

/// Columns of a refinement's blocks, at most.
inline constexpr Index refined_columns = 128;

/// Rows of a tally, one column per output row: what the refinement counts as it goes.
struct Tally {
    enum Row : Index {
        Lowered,   ///< += by how much the objective fell
        Changed,   ///< += codes that changed
        Finished,  ///< in: not 0 where the output row is to be left alone
        rows,
    };
};

/// One block of columns [begin, end) of a refinement pass, for a slab of output rows; matrices hold one
/// column of the layer per row as in SweepBlock, E = W* - Q.
///
/// With g = outside + fresh, the gradient E H: group by group, refit the scale, or the codes of scale and minimum of
/// a TwoLevelGrid, g and E following; then column by column take the code nearest to q_k + g_k / H_kk where it is
/// nearer than the present one.
template <Real T>
struct RefineBlock {
    Index begin = 0;
    Index end = 0;
    bool backward = false;  ///< from the last column and group to the first

    MatrixView<T> error;        ///< (in_features, rows) E, in and, in [begin, end), out
    MatrixView<const T> fresh;  ///< (end - begin, rows) sum of H_ki E_i over blocks that the pass has visited
    MatrixView<T> outside;      ///< (in_features, rows) in: over this block and those yet to come; out: fresh
    MatrixView<const T> gram;   ///< (end - begin, end - begin) H of the block, both triangles
    MatrixView<Code> codes;     ///< (in_features, rows) in and out
    MatrixView<T> scales;       ///< (groups, rows) in and, for `refits`, out
    MatrixView<T> zeros;        ///< (groups, rows) in and, for `refits` of a TwoLevelGrid, out
    MatrixView<double> tally;   ///< (Tally::rows, rows)
    MatrixView<const T> shared;  ///< (2, rows) what the family of all `refits` shares, of a TwoLevelGrid

    std::span<const GroupRange> refits;  ///< groups to refit, ascending; empty, or all that share the block
    std::span<const Index> group_of;     ///< (in_features) group of each column
};

/// The refit of one group of columns that is too wide for a block. With slopes C = dQ / dscale, and H in the
/// group split into blocks on the diagonal, those that a pass visits earlier, and those it visits `later`:
///
///     C H E' = sum_k C_k (outside_k + fresh_k) + later_k E_k,   C H C' = sum_k C_k (2 later_k +
///     own_k)
///
/// A new scale s + d changes E by -d C and `outside` by -d (later + own).
template <Real T>
struct RefineGroup {
    MatrixView<T> error;         ///< (columns of the group, rows), as everything here
    MatrixView<T> outside;       ///< as in RefineBlock
    MatrixView<const T> fresh;   ///< over columns before the group
    MatrixView<const T> slopes;  ///< C
    MatrixView<const T> later;   ///< sum over i in blocks of the group that come later of H_ki C_i
    MatrixView<const T> own;     ///< over i in the same block
    MatrixView<T> scales;        ///< (1, rows) in and out
    MatrixView<double> tally;    ///< (Tally::rows, rows)
};

/// The two numbers of GridParams.
enum class Number { Scale, Zero };

/// A family of a TwoLevelGrid that a refinement visits. Its groups have the scales d s_j and zeros e m_j, with codes
/// s_j and m_j; what {d, e} are is found, and then refitted one after the other as the scale of one RefineGroup, with
/// slopes s_j decode(code, {1, 0}) and m_j.
template <Real T>
struct RefineFamily {
    MatrixView<const Code> codes;     ///< (columns of the family, rows)
    std::span<const Index> group_of;  ///< (columns of the family) group of each column, from 0
    MatrixView<T> scales;             ///< (groups of the family, rows) in and out
    MatrixView<T> zeros;              ///< (groups of the family, rows) in and out
    MatrixView<T> shared;             ///< (2, rows) d and e
    MatrixView<T> scale_slopes;       ///< (columns of the family, rows) out
    MatrixView<T> zero_slopes;        ///< likewise, if the grid has minima
};

}  // namespace residua
