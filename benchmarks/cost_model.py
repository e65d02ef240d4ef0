"""What P ranks take for a model, by the costs of docs/distributed.md: seconds to accumulate, to add up, to solve, to send.

    cost_model.py [--ranks 1 2 8] [--bandwidth GB/s] [--method gptq|qep] [--model llama-8b|deepseek-671b]

Rates are those of one H200 in docs/performance.md and docs/distributed.md, float products split onto tensor cores; --bandwidth
is what `all_reduce(moments)` reaches on the bus, which `benchmarks/distributed.sh reduce` prints. Solves are shared as SolvePlan
shares them, but by these seconds.
"""

import argparse
import math

TOKENS = 128 * 2048
GRAMS = 0.75 * 750e12  # operations a second on bf16 tensor cores: H and D
SWEEPS = 50e12  # the same of a sweep with its products
PRODUCTS = 140e12  # of other products with the weights
FACTORS = 200e12  # of triangular solves and Cholesky factorizations
COLUMN = 0.55e-6  # seconds that a factorization takes a column, whatever its operations
ROWS_AT_ONCE = 4096  # fewer rows of a layer take as long


def llama_8b():
    hidden, key_value, inner = 4096, 1024, 14336
    block = [(hidden, (hidden, key_value, key_value), 1), (hidden, (hidden,), 1), (hidden, (inner, inner), 1),
             (inner, (hidden,), 1)]
    return [block] * 32


def deepseek_671b():
    """(in_features, rows of the layers of the group, part of the tokens that it sees)"""
    attention = [(7168, (1536, 576), 1), (1536, (24576,), 1), (512, (32768,), 1), (16384, (7168,), 1)]
    dense = [(7168, (18432, 18432), 1), (18432, (7168,), 1)]
    expert = [(7168, (2048, 2048), 8 / 256), (2048, (7168,), 8 / 256)]
    shared = [(7168, (2048, 2048), 1), (2048, (7168,), 1)]
    return [attention + dense] * 3 + [attention + shared + 256 * expert] * 58


def costs(method):
    """of a group (n, rows of its layers): seconds of the factor and of all rows, and matrices that are sent, in n^2"""
    def all_residuals(n, rows):
        return method == "qep" and sum(rows) >= n

    def factor(n, rows):
        return COLUMN * n + (n**3 / 3 + (n**3 if all_residuals(n, rows) else 0)) / FACTORS

    def solve(n, rows, ranks=1):
        m = max(sum(rows) / ranks, ROWS_AT_ONCE) if ranks > 1 else sum(max(m, ROWS_AT_ONCE) for m in rows)
        more = 0 if method == "gptq" else 2 if all_residuals(n, rows) else 3
        return m * n * n * (1 / SWEEPS + more / PRODUCTS)

    def factors_sent(n, rows):
        return 1.5 if all_residuals(n, rows) else 0.5

    return factor, solve, factors_sent, 0.5 if method == "gptq" else 1.5


def block_seconds(block, ranks, bandwidth, method):
    factor, rows, factors_sent, sums = costs(method)
    accumulate = sum(2 * sums * TOKENS * part * n * n for n, _, part in block) / GRAMS / ranks
    factor_s = [factor(n, m) for n, m, _ in block]
    rows_s = [rows(n, m) for n, m, _ in block]

    def shared_by(split):
        """loads of the ranks, and the owners of the groups"""
        own = [f + (0 if g in split else r) for g, (f, r) in enumerate(zip(factor_s, rows_s))]
        loads, owners = [0.0] * ranks, {}
        for g in sorted(range(len(block)), key=lambda g: -own[g]):
            owners[g] = loads.index(min(loads))
            loads[owners[g]] += own[g]
        shared = sum(rows(*block[g][:2], ranks) for g in split)
        return [load + shared for load in loads], owners

    split = best = frozenset()
    loads, owners = shared_by(split)
    least = max(loads)
    while ranks > 1 and max(loads) > 1.2 * sum(loads) / ranks:  # as SolvePlan does
        busiest = loads.index(max(loads))
        left = [g for g in owners if owners[g] == busiest and g not in split]
        if not left:
            break
        split |= {max(left, key=lambda g: rows_s[g])}
        loads, owners = shared_by(split)
        if max(loads) < least:
            least, best = max(loads), split
    split = best
    ring = (ranks - 1) / ranks
    add_up = sum(4 * sums * n * n * (2 if g in split else 1) * ring for g, (n, _, _) in enumerate(block)) / bandwidth
    send = sum(4 * factors_sent(*block[g][:2]) * block[g][0] ** 2 for g in split) / bandwidth
    codes = sum(sum(m) * n * (1 + 8 / 128) for n, m, _ in block) * ring / bandwidth
    return accumulate, add_up, least, send + codes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--bandwidth", type=float, default=150)
    parser.add_argument("--method", choices=["gptq", "qep"], default="qep")
    parser.add_argument("--model", choices=["llama-8b", "deepseek-671b"], default="llama-8b")
    arguments = parser.parse_args()
    blocks = llama_8b() if arguments.model == "llama-8b" else deepseek_671b()
    print(f"{arguments.model}, {arguments.method}, {sum(sum(m) * n for b in blocks for n, m, _ in b) / 1e9:.1f} billion weights, "
          f"{arguments.bandwidth:.0f} GB/s")
    print("ranks  accumulate  add up   solve    send     all  gain")
    one = None
    for ranks in arguments.ranks:
        kinds = {}
        total = [0.0] * 4
        for block in blocks:
            key = id(block)
            if key not in kinds:
                kinds[key] = block_seconds(block, ranks, 1e9 * arguments.bandwidth, arguments.method)
            total = [a + b for a, b in zip(total, kinds[key])]
        one = one or sum(total) * ranks / arguments.ranks[0]
        print(f"{ranks:5} {total[0]:11.1f} {total[1]:7.2f} {total[2]:7.1f} {total[3]:7.2f} {sum(total):7.1f} "
              f"{one / sum(total):5.2f}")


main()
