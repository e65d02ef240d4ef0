#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "residua/backends/backend.hpp"
#include "residua/backends/host/matrices.hpp"
#include "residua/distributed/communicator.hpp"

namespace residua::detail {

/// The part of a matrix that is sent; triangles are those of square ones.
enum class MatrixPart { UpperTriangle, LowerTriangle, All };

/// A block of a matrix whose rows lie one behind the other in a buffer, from `offset` on.
struct Panel {
    Index row = 0, rows = 0;
    Index column = 0, columns = 0;
    Index offset = 0;
};

/// A part of a matrix as lists of panels, each of which fits into a buffer of buffer_size(). A panel is as high as
/// its excess over a triangle, height / columns, is worth.
class Panels {
  public:
    Panels(Index rows, Index columns, MatrixPart part) {
        const Index height = std::clamp<Index>(columns / 16, 1, 256);
        for (Index row = 0; row < rows; row += height) {
            Panel panel{.row = row, .rows = std::min(height, rows - row), .columns = columns};
            if (part == MatrixPart::UpperTriangle) panel.column = row;
            if (part == MatrixPart::LowerTriangle) panel.columns = row + panel.rows;
            panel.columns -= panel.column;
            const Index size = panel.rows * panel.columns;
            if (lists_.empty() || used(lists_.back()) + size > most_elements) lists_.emplace_back();
            panel.offset = used(lists_.back());
            lists_.back().push_back(panel);
            largest_ = std::max(largest_, panel.offset + size);
        }
    }

    const std::vector<std::vector<Panel>>& lists() const { return lists_; }

    /// Elements that a buffer must hold.
    Index buffer_size() const { return largest_; }

    static Index used(const std::vector<Panel>& list) {
        return list.empty() ? 0 : list.back().offset + list.back().rows * list.back().columns;
    }

  private:
    static constexpr Index most_elements = Index(1) << 26;

    std::vector<std::vector<Panel>> lists_;
    Index largest_ = 0;
};

/// A buffer that a backend packs panels into and a communicator reads and writes: memory of the backend, and
/// its copy on the host where the communicator does not reach that.
template <Real T, Backend<T> B, Communicator C>
class PanelBuffer {
  public:
    PanelBuffer(B& backend, Index size) : backend_(&backend), memory_(backend.template allocate<T>(1, size)) {
        if constexpr (!direct) host_.resize(static_cast<std::size_t>(size));
    }

    void pack(MatrixView<const T> matrix, const std::vector<Panel>& panels) {
        for (const Panel& p : panels) backend_->copy(block(matrix, p), place(p));
        if constexpr (!direct) {
            const auto values =
                backend_->read(std::as_const(memory_).view().block(0, 0, 1, Panels::used(panels)));
            std::copy(values.begin(), values.end(), host_.begin());
        }
    }

    void unpack(const std::vector<Panel>& panels, MatrixView<T> matrix) {
        if constexpr (!direct) {
            const Index size = Panels::used(panels);
            backend_->write(std::vector<T>(host_.begin(), host_.begin() + size),
                            memory_.view().block(0, 0, 1, size));
        }
        for (const Panel& p : panels) backend_->copy(MatrixView<const T>(place(p)), block(matrix, p));
    }

    /// The first `size` values, for the communicator.
    std::span<T> values(Index size) {
        if constexpr (direct) return {memory_.view().data, static_cast<std::size_t>(size)};
        return std::span(host_).first(static_cast<std::size_t>(size));
    }

    void clear() {
        backend_->set_zero(memory_.view());
        if constexpr (!direct) std::fill(host_.begin(), host_.end(), T(0));
    }

    /// this[at, at + size) += this[from, from + size), or of another buffer
    void add(Index at, PanelBuffer& other, Index from, Index size) {
        if constexpr (direct) {
            backend_->add(std::as_const(other.memory_).view().block(0, from, 1, size),
                          memory_.view().block(0, at, 1, size));
        } else {
            for (Index i = 0; i < size; ++i)
                host_[static_cast<std::size_t>(at + i)] += other.host_[static_cast<std::size_t>(from + i)];
        }
    }

  private:
    static constexpr bool direct = C::reaches_device || std::derived_from<B, HostMatrices>;

    template <class U>
    static MatrixView<U> block(MatrixView<U> matrix, const Panel& p) {
        return matrix.block(p.row, p.column, p.rows, p.columns);
    }

    MatrixView<T> place(const Panel& p) { return {memory_.view().data + p.offset, p.rows, p.columns}; }

    B* backend_;
    typename B::template Matrix<T> memory_;
    std::vector<T> host_;
};

/// A part of `matrix` becomes that of rank `from`.
template <Real T, Backend<T> B, Communicator C>
void broadcast_matrix(B& backend, C& ranks, MatrixView<T> matrix, MatrixPart part, int from) {
    if (ranks.size() == 1) return;
    const Panels panels(matrix.rows, matrix.cols, part);
    PanelBuffer<T, B, C> buffer(backend, panels.buffer_size());
    for (const auto& list : panels.lists()) {
        if (ranks.rank() == from) buffer.pack(matrix, list);
        ranks.broadcast(buffer.values(Panels::used(list)), from);
        if (ranks.rank() != from) buffer.unpack(list, matrix);
    }
}

}  // namespace residua::detail
