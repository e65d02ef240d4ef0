#pragma once

#ifdef RESIDUA_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

#include "residua/core/matrix.hpp"

/// Products of bfloat16 matrices by oneDNN (RESIDUA_ONEDNN), which uses the instructions that a CPU has for them.
namespace residua::detail {

/// Whether it is built in, and the CPU multiplies bfloat16 faster than float.
inline bool has_fast_bf16_products() {
#if defined(RESIDUA_ONEDNN) && defined(__x86_64__)
    static const bool has = __builtin_cpu_supports("avx512bf16");  // which CPUs with AMX have, too
    return has;
#else
    return false;
#endif
}

#ifdef RESIDUA_ONEDNN

inline const dnnl::engine& onednn_cpu() {
    static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}

/// Y = A' X for A (terms, m), X (terms, n) and Y (m, n), summed in float. oneDNN takes as many threads as OpenMP gives it.
inline void multiply_bf16(MatrixView<const bfloat16> a, MatrixView<const bfloat16> x, MatrixView<float> y) {
    using dnnl::memory;
    const dnnl::engine& cpu = onednn_cpu();
    const memory::desc left({a.cols, a.rows}, memory::data_type::bf16, memory::dims{1, a.stride});
    const memory::desc right({x.rows, x.cols}, memory::data_type::bf16, memory::dims{x.stride, 1});
    const memory::desc target({y.rows, y.cols}, memory::data_type::f32, memory::dims{y.stride, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the library's belongs to one thread
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc description(cpu, left, right, target, attributes);
#else
    const dnnl::matmul::primitive_desc description({left, right, target}, attributes, cpu);
#endif
    const memory::desc scratch = description.scratchpad_desc();
    Matrix<char> scratchpad(1, static_cast<Index>(scratch.get_size()));
    dnnl::stream stream(cpu);
    dnnl::matmul(description)
        .execute(stream, {{DNNL_ARG_SRC, memory(left, cpu, const_cast<bfloat16*>(a.data))},
                          {DNNL_ARG_WEIGHTS, memory(right, cpu, const_cast<bfloat16*>(x.data))},
                          {DNNL_ARG_DST, memory(target, cpu, y.data)},
                          {DNNL_ARG_SCRATCHPAD, memory(scratch, cpu, scratchpad.data())}});
    stream.wait();
}

#endif

}  // namespace residua::detail
