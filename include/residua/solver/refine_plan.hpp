#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "residua/backends/refine_block.hpp"
#include "residua/core/ordering.hpp"

namespace residua::detail {

/// Columns of a refinement's panels, at most, unless they are one group.
inline constexpr Index refined_panel_columns = 1024;

/// How a refinement divides the columns: into blocks that the backend refines at a time, and panels of blocks
/// that share one product with everything outside of them.
class RefinementPlan {
  public:
    /// Whole groups, of one family if there are families, a part of a group that is wider than a block, or any
    /// columns if nothing is refitted.
    struct Block {
        Index begin, end;
        std::size_t first_group, last_group;  ///< into the runs; none in a part of a wide group
    };
    struct Panel {
        Index begin, end;
        std::size_t first_block, last_block;
        bool is_wide;  ///< one group that is wider than a block, or one family
    };

    /// `group_of`: of each column in the order of the refinement, and runs of a group are not scattered if
    /// `refits`. `family`: groups that share numbers, none if 0.
    RefinementPlan(std::span<const Index> group_of, Index block_size, bool refits, Index family) {
        const Index n = static_cast<Index>(group_of.size());
        const Index width = std::min(block_size, refined_columns);
        if (!refits) {
            for (Index k = 0; k < n; k += width) add_block(k, std::min(n, k + width), 0, 0, false);
            return;
        }
        runs_ = runs_of(group_of);
        if (family > 0) {
            add_families(family, width);
            return;
        }
        for (std::size_t g = 0; g < runs_.size();) {
            const Index begin = runs_[g].begin;
            std::size_t last = g + 1;
            if (runs_[g].end - begin > width) {
                const Index end = runs_[g].end;
                panels_.push_back({begin, begin, blocks_.size(), blocks_.size(), true});
                for (Index k = begin; k < end; k += width) add_block(k, std::min(end, k + width), 0, 0, true);
            } else {
                while (last < runs_.size() && runs_[last].end - begin <= width) ++last;
                add_block(begin, runs_[last - 1].end, g, last, false);
            }
            g = last;
        }
    }

    const std::vector<Block>& blocks() const { return blocks_; }
    const std::vector<Panel>& panels() const { return panels_; }
    std::span<const Block> blocks_of(const Panel& panel) const {
        return std::span(blocks_).subspan(panel.first_block, panel.last_block - panel.first_block);
    }
    /// Those that lie in the block, if it holds whole groups.
    std::span<const GroupRange> groups_of(const Block& block) const {
        return std::span(runs_).subspan(block.first_group, block.last_group - block.first_group);
    }

    Index widest_block() const {
        Index widest = 0;
        for (const Block& block : blocks_) widest = std::max(widest, block.end - block.begin);
        return widest;
    }
    Index widest_panel() const {
        Index widest = 0;
        for (const Panel& panel : panels_) widest = std::max(widest, panel.end - panel.begin);
        return widest;
    }
    /// Columns of a group, or family, that is a panel; 0 if there is none.
    Index widest_group() const {
        Index widest = 0;
        for (const Panel& panel : panels_) {
            if (panel.is_wide) widest = std::max(widest, panel.end - panel.begin);
        }
        return widest;
    }

  private:
    void add_families(Index family, Index width) {
        for (std::size_t g = 0, last = 0; g < runs_.size(); g = last) {
            while (last < runs_.size() && runs_[last].id / family == runs_[g].id / family) ++last;
            panels_.push_back({runs_[g].begin, runs_[g].begin, blocks_.size(), blocks_.size(), true});
            for (std::size_t from = g, to = g; from < last; from = to) {
                const Index begin = runs_[from].begin;
                for (to = from + 1; to < last && runs_[to].end - begin <= width;) ++to;
                add_block(begin, runs_[to - 1].end, from, to, true);
            }
        }
    }

    void add_block(Index begin, Index end, std::size_t first_group, std::size_t last_group, bool is_wide) {
        const bool fits = !panels_.empty() && panels_.back().is_wide == is_wide &&
                          (is_wide || end - panels_.back().begin <= refined_panel_columns);
        if (!fits) panels_.push_back({begin, begin, blocks_.size(), blocks_.size(), is_wide});
        blocks_.push_back({begin, end, first_group, last_group});
        panels_.back().end = end;
        panels_.back().last_block = blocks_.size();
    }

    std::vector<GroupRange> runs_;
    std::vector<Block> blocks_;
    std::vector<Panel> panels_;
};

}  // namespace residua::detail
