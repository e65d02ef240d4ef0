#pragma once

#include <span>

#include "residua/core/ordering.hpp"
#include "residua/core/view.hpp"

namespace residua {

/// One block of columns [begin, end) of the order of quantization, for a slab of output rows. For k in it,
///
///     c_k = w_k + G_k / R_kk,   f_k = w_k - s_k,   G_j += f_k R_kj + a_k M_kj  for j > k
///
/// (methods/method.hpp), the last term for Residuals::OfColumnsBefore alone. A group that begins at k is
/// fitted to w + y, y R = G over its columns: the weights compensated for all columns before it.
///
/// All matrices here hold one column of the layer per row, so that the output rows, which are independent of
/// each other, lie side by side for vector lanes and device threads.
template <Real T>
struct SweepBlock {
    Index begin = 0;
    Index end = 0;
    Index reach = 0;  ///< max(end, end of every group in `fits`)

    MatrixView<T> columns;     ///< (in_features, rows) in: w_i, i >= begin; out: f_i in [begin, end)
    MatrixView<const T> sums;  ///< (reach - begin, rows) G_j as it is at `begin`
    MatrixView<T> residuals;   ///< (in_features, rows) out: a_i in [begin, end), where columns before count

    MatrixView<const T> factor;  ///< (in_features, in_features) R; the upper triangle is read
    MatrixView<const T>
        residual_matrix;  ///< (in_features, in_features) M'; the strict lower triangle is read

    MatrixView<Code> codes;  ///< (in_features, rows) out: codes of [begin, end)
    MatrixView<T> scales;    ///< (groups, rows) in and, for the groups in `fits`, out
    MatrixView<T> zeros;     ///< (groups, rows) likewise

    /// Groups whose first column is in [begin, end), in that order. Of a TwoLevelGrid, whose families are fitted
    /// before the block: those whose codes are searched then, all of one family that shares `shared` (2, rows).
    std::span<const GroupRange> fits;
    MatrixView<const T> shared;
    std::span<const Index> group_of;  ///< (in_features) group of each column
    PublishedBehaviour published;

    Code* overflow = nullptr;  ///< out: set to 1 where a compensated weight is NaN or infinite
};

}  // namespace residua
