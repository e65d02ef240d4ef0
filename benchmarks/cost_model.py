"""What P ranks take for a model, by the costs of docs/distributed.md: seconds to accumulate, to add up, to solve, to send.

    cost_model.py [--ranks 1 2 8] [--bandwidth GB/s] [--method gptq|qep] [--model llama-8b|deepseek-671b]

Rates are those that docs/performance.md has of one H100; --bandwidth is the bus bandwidth that
`benchmarks/distributed.sh reduce` prints. Solves are shared as SolvePlan shares them.
"""

import argparse
import math

TOKENS = 128 * 2048
PRODUCTS = 0.75 * 51.7e12  # operations a second in fp32, and the share of them that sweeps reach
GRAMS = 0.75 * 750e12  # the same on bf16 tensor cores: H and D
SOLVES = 30e12  # triangular solves and Cholesky factorizations of large matrices
LAUNCHES = 1e-3  # seconds of a solve whatever its size


def llama_8b():
    hidden, key_value, inner = 4096, 1024, 14336
    block = [(hidden, hidden + 2 * key_value, 1), (hidden, hidden, 1), (hidden, 2 * inner, 1), (inner, hidden, 1)]
    return [block] * 32


def deepseek_671b():
    """(in_features, rows of all layers of the group, part of the tokens that it sees)"""
    attention = [(7168, 1536 + 576, 1), (1536, 24576, 1), (512, 32768, 1), (16384, 7168, 1)]
    dense = [(7168, 2 * 18432, 1), (18432, 7168, 1)]
    expert = [(7168, 2 * 2048, 8 / 256), (2048, 7168, 8 / 256)]
    shared = [(7168, 2 * 2048, 1), (2048, 7168, 1)]
    return [attention + dense] * 3 + [attention + shared + 256 * expert] * 58


def costs(method):
    """of a group (n, m): operations of the factor and of all rows, and matrices that are sent, in n^2"""
    def factor(n, m):
        return n**3 / 3 + (n**3 if method == "qep" and m >= n else 0)

    def rows(n, m):
        return m * n**2 * (1 if method == "gptq" else 3 if m >= n else 4)

    def factors_sent(n, m):
        return 0.5 if method == "gptq" or m < n else 1.5

    return factor, rows, factors_sent, 0.5 if method == "gptq" else 1.5


def block_seconds(block, ranks, bandwidth, method):
    factor, rows, factors_sent, sums = costs(method)
    accumulate = sum(2 * sums * TOKENS * part * n * n for n, _, part in block) / GRAMS / ranks
    factor_s = [factor(n, m) / SOLVES + LAUNCHES for n, m, _ in block]
    rows_s = [rows(n, m) / PRODUCTS for n, m, _ in block]
    split = set()
    while True:  # as SolvePlan does
        own = [f + (0 if g in split else r) for g, (f, r) in enumerate(zip(factor_s, rows_s))]
        loads, owners = [0.0] * ranks, {}
        for g in sorted(range(len(block)), key=lambda g: -own[g]):
            owners[g] = loads.index(min(loads))
            loads[owners[g]] += own[g]
        shared = sum(rows_s[g] for g in split) / ranks
        mean = (sum(factor_s) + sum(rows_s)) / ranks
        busiest = loads.index(max(loads))
        left = [g for g in owners if owners[g] == busiest and g not in split]
        if ranks == 1 or max(loads) + shared <= 1.2 * mean or not left:
            break
        split.add(max(left, key=lambda g: rows_s[g]))
    ring = (ranks - 1) / ranks
    add_up = sum(4 * sums * n * n * (2 if g in split else 1) * ring for g, (n, _, _) in enumerate(block)) / bandwidth
    send = sum(4 * factors_sent(*block[g][:2]) * block[g][0] ** 2 for g in split) / bandwidth
    codes = sum(m * n * (1 + 8 / 128) for n, m, _ in block) * ring / bandwidth
    return accumulate, add_up, max(loads) + shared, send + codes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--bandwidth", type=float, default=300)
    parser.add_argument("--method", choices=["gptq", "qep"], default="qep")
    parser.add_argument("--model", choices=["llama-8b", "deepseek-671b"], default="llama-8b")
    arguments = parser.parse_args()
    blocks = llama_8b() if arguments.model == "llama-8b" else deepseek_671b()
    print(f"{arguments.model}, {arguments.method}, {sum(m * n for b in blocks for n, m, _ in b) / 1e9:.1f} billion weights, "
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
