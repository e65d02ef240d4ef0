#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "residua/transform/hadamard_base.hpp"

/// Sums and differences on contiguous values: the two factors of a Hadamard transform,
/// x <- x H without its scale.
namespace residua::detail::hadamard {

/// `Count` values that are added at once. Compilers that know such vectors turn them into what the processor
/// has; loops over arrays they often turn into permutations.
template <Real T, int Count>
struct Vector {
#if defined(__GNUC__)
    typedef T Values __attribute__((vector_size(sizeof(T) * Count)));
#else
    struct Values {
        T v[Count];
        Values& operator+=(const Values& b) { return *this = *this + b; }
        friend Values operator+(Values a, const Values& b) {
            for (int i = 0; i < Count; ++i) a.v[i] += b.v[i];
            return a;
        }
        friend Values operator-(Values a, const Values& b) {
            for (int i = 0; i < Count; ++i) a.v[i] -= b.v[i];
            return a;
        }
        friend Values operator*(Values a, T b) {
            for (int i = 0; i < Count; ++i) a.v[i] *= b;
            return a;
        }
    };
#endif
};
template <Real T>
struct Vector<T, 1> {
    using Values = T;
};

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

/// Values of a vector.
template <Real T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

/// Values of one cache line.
template <Real T>
inline constexpr Index line = 64 / static_cast<Index>(sizeof(T));

template <class V, Real T>
inline void load(const T* from, V& value) {
    std::memcpy(&value, from, sizeof(V));
}
template <class V, Real T>
inline void store(const V& value, T* to) {
    std::memcpy(to, &value, sizeof(V));
}

/// x <- x H_Radix for vectors V of transforms side by side; their elements are `distance` apart.
template <int Radix, class V, Real T>
inline void butterfly(T* x, Index distance) {
    V v[Radix];
    for (int j = 0; j < Radix; ++j) load(x + j * distance, v[j]);
    for (int half = 1; half < Radix; half *= 2) {
        for (int j = 0; j < Radix; ++j) {
            if (j & half) continue;
            const V a = v[j];
            v[j] = a + v[j + half];
            v[j + half] = a - v[j + half];
        }
    }
    for (int j = 0; j < Radix; ++j) store(v[j], x + j * distance);
}

/// One factor I (x) H_Radix (x) I_distance on `size` values.
template <int Radix, Real T>
void butterfly_pass(T* x, Index size, Index distance) {
    using V = typename Vector<T, lanes<T>>::Values;
    for (Index start = 0; start < size; start += Radix * distance) {
        Index l = 0;
        for (; l + lanes<T> <= distance; l += lanes<T>) butterfly<Radix, V>(x + start + l, distance);
        for (; l < distance; ++l) butterfly<Radix, T>(x + start + l, distance);
    }
}

/// x <- x (I (x) H_lanes) within vectors: a product, as permutations cost more.
template <Real T>
void transform_vectors(T* x, Index size) {
    using V = typename Vector<T, lanes<T>>::Values;
    constexpr auto signs = [] {
        std::array<T, std::size_t(lanes<T> * lanes<T>)> matrix = {};
        for (std::size_t i = 0; i < matrix.size(); ++i)
            matrix[i] = std::popcount(i / lanes<T> & i % lanes<T>) % 2 ? T(-1) : T(1);
        return matrix;
    }();
    V h[lanes<T>];
    for (int i = 0; i < lanes<T>; ++i) load(signs.data() + i * lanes<T>, h[i]);
    for (Index start = 0; start < size; start += lanes<T>) {
        V sum = h[0] * x[start];
        for (int i = 1; i < lanes<T>; ++i) sum += h[i] * x[start + i];
        store(sum, x + start);
    }
}

/// x <- x (H_count (x) I_inner) for count * inner values, `count` a power of two:
/// log2(count) additions for each value.
template <Real T>
void transform_power(T* x, Index count, Index inner) {
    const Index size = count * inner;
    Index distance = inner;
    if (inner == 1 && count >= lanes<T>) {
        transform_vectors(x, size);
        distance = lanes<T>;
    }
    while (distance < size) {
        const Index left = size / distance;
        const int radix = left == 2 ? 2 : left == 4 || left == 16 ? 4 : 8;
        if (radix == 8) butterfly_pass<8>(x, size, distance);
        if (radix == 4) butterfly_pass<4>(x, size, distance);
        if (radix == 2) butterfly_pass<2>(x, size, distance);
        distance *= radix;
    }
}

/// x <- x (H_K (x) I_width), or with H_K's transpose.
///
/// Four elements have 16 signed sums; each output is the sum of one of them for each four inputs: K/4 + 5
/// additions for each value instead of K.
class BaseTransform {
  public:
    BaseTransform(Index order, bool transposed) : order_(order) {
        if (order == 1) return;
        const std::vector<signed char> h = hadamard_base(order);
        for (Index j = 0; j < order; j += 4) {
            for (Index i = 0; i < order; i += 4) {
                for (Index o = j; o < j + 4; ++o) {
                    int pattern = 0;
                    for (Index k = 0; k < 4; ++k) {
                        const Index at = transposed ? o * order + i + k : (i + k) * order + o;
                        if (h[static_cast<std::size_t>(at)] < 0) pattern |= 1 << k;
                    }
                    patterns_.push_back(static_cast<std::uint8_t>(pattern));
                }
            }
        }
    }

    /// Element (i, j) of the matrix.
    int sign(Index i, Index j) const {
        if (order_ == 1) return 1;
        const Index at = (j / 4 * (order_ / 4) + i / 4) * 4 + j % 4;
        return patterns_[static_cast<std::size_t>(at)] >> (i % 4) & 1 ? -1 : 1;
    }

    template <Real T>
    void apply(T* x, Index width) const {
        if (order_ == 1) return;
        using V = typename Vector<T, lanes<T>>::Values;
        constexpr int parts = static_cast<int>(line<T>) / lanes<T>;
        Index l = 0;
        for (; l + line<T> <= width; l += line<T>) strip<V, parts>(x + l, width);
        for (; l < width; ++l) strip<T, 1>(x + l, width);
    }

  private:
    /// Of `Parts` vectors side by side.
    template <class V, int Parts, Real T>
    void strip(T* x, Index width) const {
        constexpr Index lane_count = static_cast<Index>(sizeof(V) / sizeof(T));
        alignas(64) V sums[largest_base / 4][16][Parts];
        const Index quads = order_ / 4;
        for (Index q = 0; q < quads; ++q) {
            for (int v = 0; v < Parts; ++v)
                signed_sums<V, Parts>(x + 4 * q * width + v * lane_count, width, sums[q], v);
        }

        constexpr int together = 4;  // outputs, to hide the latency of the additions; K is a multiple of 4
        for (Index j = 0; j < order_; j += together) {
            const std::uint8_t* pattern = patterns_.data() + j * quads;
            V total[together][Parts] = {};
            for (Index q = 0; q < quads; ++q, pattern += together) {
                for (int o = 0; o < together; ++o) {
                    const V* term = sums[q][pattern[o]];
                    for (int v = 0; v < Parts; ++v) total[o][v] += term[v];
                }
            }
            for (int o = 0; o < together; ++o) {
                for (int v = 0; v < Parts; ++v) store(total[o][v], x + (j + o) * width + v * lane_count);
            }
        }
    }

    /// sums[p] = +-a +-b +-c +-d, bit k of p set where the k-th is subtracted.
    template <class V, int Parts, Real T>
    static void signed_sums(const T* x, Index width, V (&sums)[16][Parts], int v) {
        V a, b, c, d;
        load(x, a);
        load(x + width, b);
        load(x + 2 * width, c);
        load(x + 3 * width, d);
        const V front[4] = {a + b, b - a, a - b, V{} - a - b};
        const V back[4] = {c + d, d - c, c - d, V{} - c - d};
        for (int p = 0; p < 16; ++p) sums[p][v] = front[p % 4] + back[p / 4];
    }

    Index order_;
    std::vector<std::uint8_t> patterns_;  // (K/4 outputs, K/4 inputs, 4 outputs)
};

}  // namespace residua::detail::hadamard
