#pragma once

#include "residua/backends/eigen.hpp"

/// The backends that the TEMPLATE_TEST_CASEs run on. A backend joins by a tag of its own in this list:
///
///     Scalar   element type of moments and compensation
///     Backend  a Backend<Scalar>
///     get()    the one instance that the tests share
///
/// The templates are the same code in float and in double: under sanitizers, float is enough.
#ifdef RESIDUA_TEST_FLOAT_ONLY
#define RESIDUA_TEST_SCALARS float
#define RESIDUA_TEST_BACKENDS ::residua::test::EigenFloat
#else
#define RESIDUA_TEST_SCALARS float, double
#define RESIDUA_TEST_BACKENDS ::residua::test::EigenDouble, ::residua::test::EigenFloat
#endif
#define RESIDUA_TEST_DOUBLE_BACKENDS ::residua::test::EigenDouble

namespace residua::test {

template <Real T>
struct EigenTag {
    using Scalar = T;
    using Backend = EigenBackend;

    static Backend& get() {
        static Backend backend;
        return backend;
    }
};

struct EigenDouble : EigenTag<double> {};
struct EigenFloat : EigenTag<float> {};

}  // namespace residua::test
