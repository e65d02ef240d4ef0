#pragma once

#include <Eigen/Core>
#include <residua/core/view.hpp>

/// What the models of the example programs are made of.
namespace network {

using residua::Index;

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::Matrix<float, 1, Eigen::Dynamic>;

inline residua::MatrixView<float> view(Rows& m) { return {m.data(), m.rows(), m.cols()}; }
inline residua::MatrixView<const float> view(const Rows& m) { return {m.data(), m.rows(), m.cols()}; }

/// y = x W' + b.
struct Linear {
    Rows weight;       ///< (out, in)
    Vector bias = {};  ///< (out), or empty

    Rows operator()(const Rows& x) const {
        Rows y = x * weight.transpose();
        if (bias.size() > 0) y.rowwise() += bias;
        return y;
    }
};

}  // namespace network
