#pragma once

#include <memory>

#include "residua/distributed/panels.hpp"
#include "residua/distributed/solve_plan.hpp"
#include "residua/solver/moments.hpp"

namespace residua::detail {

/// R, and M as far as solves of the whole group are to read it, so that every part of the group reads the same.
template <Real T, Backend<T> B>
std::shared_ptr<const Factorization<T, B>> prepare_factorization(const Moments<T, B>& moments,
                                                                 const FactorizationKey& key,
                                                                 const SolveCost& cost,
                                                                 const GroupShape& group) {
    auto f = moments.factorization(key);
    if (f->status() != Status::Success) return f;
    if (cost.residuals == Residuals::OfColumnsBefore) f->residuals_before();
    if (cost.takes_all_residuals(group)) f->residuals();
    return f;
}

/// prepare_factorization() on every rank, where rank `owner` computes R and M and the others receive them.
/// `moments` are the same on every rank. Collective.
template <Real T, Backend<T> B, Communicator C>
void share_factorization(const Moments<T, B>& moments, const FactorizationKey& key, const SolveCost& cost,
                         const GroupShape& group, C& ranks, int owner) {
    B& backend = moments.backend();
    const bool before = cost.residuals == Residuals::OfColumnsBefore;
    const bool all = cost.takes_all_residuals(group);
    const bool is_owner = ranks.rank() == owner;
    enum { NeedsR, NeedsM };
    double needed[2] = {0, 0};
    if (!moments.has_factorization(key)) {
        needed[NeedsR] = 1;
        needed[NeedsM] = before || all;
    } else {
        const auto f = moments.factorization(key);
        needed[NeedsM] = (before && !f->has_residuals_before()) || (all && !f->has_residuals());
    }
    if (is_owner) needed[NeedsR] = needed[NeedsM] = 0;
    ranks.sum(std::span<double>(needed), every_rank);

    std::shared_ptr<const Factorization<T, B>> f;
    double outcome[2] = {0, 0};  // success, retries
    if (is_owner) {
        f = prepare_factorization(moments, key, cost, group);
        outcome[0] = f->status() == Status::Success;
        outcome[1] = f->retries();
    }
    ranks.broadcast(std::span<double>(outcome), owner);
    // Sent from where it lies: nobody writes to what rank `owner` broadcasts.
    const auto send = [&](MatrixView<const T> matrix, MatrixPart part) {
        broadcast_matrix(backend, ranks,
                         MatrixView<T>(const_cast<T*>(matrix.data), matrix.rows, matrix.cols, matrix.stride),
                         part, owner);
    };
    const auto receive = [&](MatrixPart part) {
        return [&, part](MatrixView<T> matrix) { broadcast_matrix(backend, ranks, matrix, part, owner); };
    };
    if (needed[NeedsR] > 0 && is_owner && outcome[0] > 0) send(f->factor(), MatrixPart::UpperTriangle);
    if (!is_owner) {
        double attempts = 0;
        f = moments.factorization(key, [&](MatrixView<T> r) {
            if (outcome[0] == 0 || attempts++ < outcome[1]) return false;
            receive(MatrixPart::UpperTriangle)(r);
            return true;
        });
    }
    if (outcome[0] == 0 || needed[NeedsM] == 0) return;
    if (before) {
        is_owner ? send(f->residuals_before(), MatrixPart::LowerTriangle)
                 : void(f->residuals_before(receive(MatrixPart::LowerTriangle)));
    }
    if (all) {
        is_owner ? send(f->residuals(), MatrixPart::All) : void(f->residuals(receive(MatrixPart::All)));
    }
}

}  // namespace residua::detail
