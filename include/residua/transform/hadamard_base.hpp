#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "residua/core/error.hpp"
#include "residua/core/types.hpp"

/// Hadamard matrices of orders that are no powers of two: K x K matrices H of +-1 with H H^T = K I.
///
/// Paley (1933), for a prime q with the quadratic character chi(a) in {0, 1, -1}, Q_ij = chi(i - j):
///     q = 3 mod 4: order q + 1,     H = I + [0 1; -1 Q]
///     q = 1 mod 4: order 2 (q + 1), H = [0 1; 1 Q] (x) [1 1; 1 -1] + I (x) [1 -1; -1 -1]
///
/// Goethals and Seidel (1967), for circulants A, B, C, D of order t that meet Williamson's condition,
/// A A^T + B B^T + C C^T + D D^T = 4 t I, and the reversal R: order 4 t,
///     H = [  A     B R   C R   D R
///          -B R     A   D^T R -C^T R
///          -C R  -D^T R   A    B^T R
///          -D R   C^T R -B^T R   A   ]
namespace residua::detail::hadamard {

enum class Construction { Trivial, PaleyI, PaleyII, GoethalsSeidel };

/// How one order is made: from the prime q, or from four first rows of circulants of order t.
struct Recipe {
    int order;
    Construction construction;
    int parameter;  ///< q or t
    std::array<std::string_view, 4> rows = {};
};

/// One order for each odd part of n. The rows are found by search, those for 39 and 43 among the rows that
/// are constant on the orbits of multiplication by 16 and by +-6.
inline constexpr Recipe recipes[] = {
    {1, Construction::Trivial, 0},
    {12, Construction::PaleyI, 11},
    {20, Construction::PaleyI, 19},
    {28, Construction::PaleyII, 13},
    {36, Construction::PaleyII, 17},
    {44, Construction::PaleyI, 43},
    {52,
     Construction::GoethalsSeidel,
     13,
     {"+-+-++--++-+-", "++--+-++-+--+", "++-++----++-+", "++----------+"}},
    {60, Construction::PaleyI, 59},
    {68, Construction::PaleyI, 67},
    {76, Construction::PaleyII, 37},
    {84, Construction::PaleyI, 83},
    {108, Construction::PaleyI, 107},
    {124, Construction::PaleyII, 61},
    {132, Construction::PaleyI, 131},
    {140, Construction::PaleyI, 139},
    {148, Construction::PaleyII, 73},
    {156,
     Construction::GoethalsSeidel,
     39,
     {"+-+-+++-+-+++--+-++-+--+-+----+-+---+-+", "+--++-+-++++--++-++++--+-+-+++-+---+--+",
      "+++--+------+++-+-----+------++-+--++--", "+--++--++++++++-----+----+++-++---++++-"}},
    {164, Construction::PaleyI, 163},
    {172,
     Construction::GoethalsSeidel,
     43,
     {"+-+-+----+-++-++---++--++---++-++-+----+-+-", "++-++-++-+-+---+--++++++++--+---+-+-++-++-+",
      "+++---++-++++-+-++--+--+--++-+-++++-++---++", "+++-+++++---++++---+----+---++++---+++++-++"}},
};

inline constexpr int largest_base = 172;

constexpr const Recipe* find_recipe(Index order) {
    for (const Recipe& recipe : recipes) {
        if (recipe.order == order) return &recipe;
    }
    return nullptr;
}

/// chi(a) for the prime q: 0 where q divides a, 1 for squares, else -1.
constexpr int quadratic_character(int a, int q) {
    const int residue = (a % q + q) % q;
    if (residue == 0) return 0;
    for (int x = 1; 2 * x < q; ++x) {
        if (x * x % q == residue) return 1;
    }
    return -1;
}

constexpr int paley1(int q, int i, int j) {
    if (i == 0 || i == j) return 1;
    return j == 0 ? -1 : quadratic_character(i - j, q);
}

constexpr int paley2(int q, int i, int j) {
    const int a = i / 2;
    const int b = j / 2;
    if (a == b) return i % 2 == 0 && j % 2 == 0 ? 1 : -1;
    const int conference = a == 0 || b == 0 ? 1 : quadratic_character(a - b, q);
    return i % 2 == 1 && j % 2 == 1 ? -conference : conference;
}

constexpr int goethals_seidel(const Recipe& recipe, int i, int j) {
    // which circulant (1 to 4) and its sign, off the diagonal all times R, below the first row transposed
    constexpr int array[4][4] = {{1, 2, 3, 4}, {-2, 1, 4, -3}, {-3, -4, 1, 2}, {-4, 3, -2, 1}};
    const int t = recipe.parameter;
    const int block_row = i / t;
    const int block_column = j / t;
    const int which = array[block_row][block_column];
    const int k = i % t;
    const bool diagonal = block_row == block_column;
    const int l = diagonal ? j % t : t - 1 - j % t;
    const bool transposed = !diagonal && block_row > 0 && block_column > 0;
    const int shift = ((transposed ? k - l : l - k) + t) % t;
    const std::string_view row = recipe.rows[static_cast<std::size_t>((which < 0 ? -which : which) - 1)];
    const int value = row[static_cast<std::size_t>(shift)] == '+' ? 1 : -1;
    return which < 0 ? -value : value;
}

constexpr int entry(const Recipe& recipe, int i, int j) {
    switch (recipe.construction) {
        case Construction::PaleyI:
            return paley1(recipe.parameter, i, j);
        case Construction::PaleyII:
            return paley2(recipe.parameter, i, j);
        case Construction::GoethalsSeidel:
            return goethals_seidel(recipe, i, j);
        case Construction::Trivial:
            break;
    }
    return 1;
}

/// K of n = 2^k K, the order of the matrix that a transform of n features starts from; 0 where there is none.
///
/// K is 1 for powers of two, else 4 times the odd part of n: 12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 108,
/// 124, 132, 140, 148, 156, 164 or 172.
constexpr Index hadamard_base_order(Index n) {
    if (n < 1) return 0;
    Index odd = n;
    while (odd % 2 == 0) odd /= 2;
    const Index order = odd == 1 ? 1 : 4 * odd;
    return n % order == 0 && find_recipe(order) ? order : 0;
}

/// H of one of these orders, +-1, row-major. Throws std::invalid_argument for other orders.
inline std::vector<signed char> hadamard_base(Index order) {
    const Recipe* recipe = find_recipe(order);
    require(recipe != nullptr, "hadamard_base: order is", order, "1 or one of 12, 20, 28, ... 172");
    std::vector<signed char> matrix;
    matrix.reserve(static_cast<std::size_t>(order * order));
    for (int i = 0; i < recipe->order; ++i) {
        for (int j = 0; j < recipe->order; ++j)
            matrix.push_back(static_cast<signed char>(entry(*recipe, i, j)));
    }
    return matrix;
}

}  // namespace residua::detail::hadamard
