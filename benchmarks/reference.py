#!/usr/bin/env python3
"""The yardstick: GPTQ, GPTAQ and ResComp column by column, in NumPy or PyTorch, to time beside bench_solve.

    python3 benchmarks/reference.py --out 4096 --in 4096 --method all
    python3 benchmarks/reference.py --out 4096 --in 4096 --method all --torch cuda --json
    python3 benchmarks/reference.py --check

Written from the papers, the way that they describe and publish the methods: float32, explicit inverse, Cholesky
factor of the inverse, blocks of 128 columns whose effect on later columns is applied once per block.

    GPTQ      arXiv 2210.17323   Algorithm 1; U'U = H^-1, U upper triangular
    GPTAQ     arXiv 2504.02692   adds the residual of the inputs through  P = triu(D U', strict) U
    ResComp   arXiv 2604.07955   adds the residual of the weights through triu((H + D) U', strict) U

H = sum x x' and D = sum (x_fp - x) x' over tokens. x are the inputs that the layer sees in the partly quantized
model, x_fp those of the full-precision model. The residual terms see the compensated weight, as in the papers'
equations. Layer and tokens are those of bench_solve in kind: uniform weights, correlated tokens, x_fp within a
tenth of x.

GFLOP/s count the operations that a method needs, which are fewer than this way of solving takes: n^3/3 + m n^2
for GPTQ, n^3 + 2 m n^2 for GPTAQ and ResComp; k n^2 for H and 3 k n^2 for H and D of k tokens. Times are medians.

--check compares every method with an unblocked recurrence in float64 that needs no inverse of H and no second
matrix for ResComp. The exit status is 1 if more than 0.1 % of the codes of the method in float64 differ; those in
float32 are printed too (a rounding that falls the other way changes the rest of its row).

    c_k = t_k + sum_{i<k} (t_i - s_i) R_ik / R_kk,  t_k = W_k + sum_{i<k} a_i P_ik,  H = R R', R upper triangular
    GPTQ: s = q, a = 0;  GPTAQ: s = q, a = alpha c;  ResComp: s = q - beta (W - c), a = alpha c + beta (W - c)
"""

import argparse
import json
import os
import statistics
import sys
import time
from copy import deepcopy

import numpy as np

METHODS = {"gptq": "GPTQ", "gptaq": "GPTAQ", "rescomp": "ResComp"}
BLOCK = 128
DAMPING = 0.01  # of the mean of diag H
ALPHA = BETA = 0.25  # weights of the residuals of GPTAQ and ResComp


def fit(xp, columns, bits, symmetric):
    """Scale and zero of each row for weights (rows, columns): w ~ scale (code - zero)."""
    last, middle = 2**bits - 1, 2 ** (bits - 1)
    zeros = xp.zeros_like(columns[:, 0])
    low = xp.minimum(xp.amin(columns, 1), zeros)
    high = xp.maximum(xp.amax(columns, 1), zeros)
    scale = xp.maximum(high, -low) / (middle - 1) if symmetric else (high - low) / last
    empty = scale == 0
    scale = xp.where(empty, zeros + 1, scale)
    zero = zeros + middle if symmetric else xp.where(empty, zeros + middle, xp.round(-low / scale))
    return scale, zero


def encode(xp, c, grid, bits):
    scale, zero = grid
    return xp.clip(xp.round(c / scale) + zero, 0, 2**bits - 1)


def accumulate(x, x_fp=None):
    """H, and D if there are full-precision inputs, of tokens (tokens, in_features)."""
    return x.T @ x, None if x_fp is None else (x_fp - x).T @ x


def condition(xp, weights, h, d):
    """Copies with dead columns cleared and H damped."""
    weights, h, d = deepcopy((weights, h, d))
    diagonal = xp.arange(h.shape[0])
    dead = h[diagonal, diagonal] == 0
    h[dead, dead] = 1
    weights[:, dead] = 0
    if d is not None:
        d[dead] = 0
        d[:, dead] = 0
    h[diagonal, diagonal] += DAMPING * xp.mean(h.diagonal())
    return weights, h, d


def solve(xp, method, weights, h, d, bits, group_size, symmetric):
    """Codes (out_features, in_features). Needs groups that divide a block or consist of whole blocks."""
    original, h, d = condition(xp, weights, h, d)
    current = deepcopy(original)
    n = h.shape[0]

    # H^-1 = U' U; row i of each matrix is what column i does to those after it, per unit of its fed[]
    u = xp.linalg.cholesky(xp.linalg.inv(h)).T
    matrices = [xp.empty_like(h)]
    matrices[0][:] = -u / u.diagonal()[:, None]  # feeds c_i - q_i; rows contiguous, which those of u are not
    if method != "gptq":
        matrices.append(ALPHA * (xp.triu(d @ u.T, 1) @ u))  # feeds c_i
    if method == "rescomp":
        matrices.append(BETA * (xp.triu((h + d) @ u.T, 1) @ u))  # feeds W_i - c_i

    codes = xp.empty_like(current)
    for begin in range(0, n, BLOCK):
        end = min(n, begin + BLOCK)
        block = deepcopy(current[:, begin:end])
        fed = [xp.empty_like(block) for _ in matrices]
        for k in range(end - begin):
            i = begin + k
            if i % group_size == 0:
                members = block[:, k:k + group_size] if k else current[:, i:i + group_size]
                grid = fit(xp, members, bits, symmetric)
            c = block[:, k]
            codes[:, i] = encode(xp, c, grid, bits)
            q = grid[0] * (codes[:, i] - grid[1])
            rest = slice(k + 1, None)
            for column, matrix, f in zip((c - q, deepcopy(c), original[:, i] - c), matrices, fed):
                f[:, k] = column
                block[:, rest] += column[:, None] * matrix[i, i + 1:end]
        for matrix, f in zip(matrices, fed):
            current[:, end:] += f @ matrix[begin:end, end:]
    return codes


def recurrence(method, weights, h, d, bits, group_size, symmetric):
    """The same codes from the equations in the docstring, in float64, one column at a time."""
    w, h, d = condition(np, *(None if a is None else np.asarray(a, np.float64) for a in (weights, h, d)))
    n = h.shape[0]
    r = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    p = np.zeros_like(h) if method == "gptq" else np.triu(np.linalg.solve(r, d.T).T, 1) @ np.linalg.inv(r)
    alpha = 0 if method == "gptq" else ALPHA
    beta = BETA if method == "rescomp" else 0

    codes = np.empty_like(w)
    t_less_s = np.zeros_like(w)
    a = np.zeros_like(w)
    for k in range(n):
        if k % group_size == 0:
            # current weights of the group: t + G R_gg^-1
            group = slice(k, k + group_size)
            sums = t_less_s[:, :k] @ r[:k, group]
            now = w[:, group] + a[:, :k] @ p[:k, group] + np.linalg.solve(r[group, group].T, sums.T).T
            grid = fit(np, now, bits, symmetric)
        t = w[:, k] + a[:, :k] @ p[:k, k]
        c = t + t_less_s[:, :k] @ r[:k, k] / r[k, k]
        codes[:, k] = encode(np, c, grid, bits)
        q = grid[0] * (codes[:, k] - grid[1])
        t_less_s[:, k] = t - q + beta * (w[:, k] - c)
        a[:, k] = alpha * c + beta * (w[:, k] - c)
    return codes


def layer(out_features, in_features, tokens):
    """Weights, x and x_fp as float32 arrays."""
    random = np.random.default_rng(1)

    def correlated():
        values = random.uniform(-1, 1, (in_features, tokens)).astype(np.float32)
        for previous, row in zip(values, values[1:]):
            row += np.float32(0.8) * previous
        return np.ascontiguousarray(values.T)

    weights = random.uniform(-1, 1, (out_features, in_features)).astype(np.float32)
    x = correlated()
    return weights, x, x + np.float32(0.1) * correlated()


def environment(xp, device):
    """What ran it: library, BLAS, threads."""
    if xp is not np:
        name = xp.cuda.get_device_name(device) if device != "cpu" else "cpu"
        return {"library": f"PyTorch {xp.__version__}", "device": name, "threads": xp.get_num_threads()}
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        blas = f"{blas['name']} {blas['version']}"
    except (TypeError, KeyError):
        blas = "unknown"
    try:
        from threadpoolctl import threadpool_info
        threads = max(pool["num_threads"] for pool in threadpool_info())
    except (ImportError, ValueError):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        wanted = [os.environ.get(v, "") for v in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")]
        threads = min([cores] + [int(v) for v in wanted if v.isdigit() and int(v) > 0][:1])
    return {"library": f"NumPy {np.__version__}", "blas": blas, "device": "cpu", "threads": threads}


def timed(work, synchronize, repeat):
    """The last result, and the median of the seconds."""
    seconds = []
    for _ in range(repeat):
        synchronize()
        start = time.perf_counter()
        result = work()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = dict(type=int, metavar="N")
    parser.add_argument("--out", dest="m", **size, help="output features (default 4096, with --check 256)")
    parser.add_argument("--in", dest="n", **size, help="input features (default 4096, with --check 320)")
    parser.add_argument("--tokens", **size, default=2048, help="tokens to accumulate (default 2048)")
    parser.add_argument("--bits", type=int, default=4, choices=range(2, 9))
    parser.add_argument("--group-size", **size, default=128, help="default 128; 0: one group a row")
    parser.add_argument("--symmetric", action="store_true", help="scale = absmax / (2^(b-1) - 1), zero = 2^(b-1)")
    parser.add_argument("--method", default="all", choices=[*METHODS, "all"])
    parser.add_argument("--repeat", **size, default=3, help="runs of each stage (default 3)")
    parser.add_argument("--torch", nargs="?", const="cpu", metavar="DEVICE", help="use PyTorch, on cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--check", action="store_true", help="compare with the recurrence instead of timing")
    given = parser.parse_args()
    given.m = 256 if given.m is None and given.check else 4096 if given.m is None else given.m
    given.n = 320 if given.n is None and given.check else 4096 if given.n is None else given.n
    if min(given.m, given.n, given.tokens, given.repeat) < 1 or given.group_size < 0:
        parser.error("sizes and --repeat must be at least 1")
    given.group_size = given.group_size or given.n
    if given.group_size < given.n and BLOCK % given.group_size and given.group_size % BLOCK:
        parser.error(f"--group-size is {given.group_size}, expected a divisor or a multiple of {BLOCK}, or 0")
    return given


def check(xp, method, weights, h, d, options):
    """Prints how many codes agree with the recurrence, in float32 and float64; false if too few."""
    def convert(array):
        return None if array is None else np.asarray(array if xp is np else array.cpu())

    expected = recurrence(method, *map(convert, (weights, h, d)), *options)
    precise = [None if a is None else a.astype(np.float64) if xp is np else a.double() for a in (weights, h, d)]
    single, double = (np.mean(convert(solve(xp, method, *arrays, *options)) == expected)
                      for arrays in ((weights, h, d), precise))
    print(f"{METHODS[method]:8} codes as by the recurrence: {double:.4%} in float64, {single:.4%} in float32")
    return double >= 0.999


def main():
    given = arguments()
    m, n, k = given.m, given.n, given.tokens
    arrays = layer(m, n, k)
    xp, device, synchronize = np, "cpu", lambda: None
    if given.torch:
        try:
            import torch as xp
            device = given.torch
            arrays = [xp.from_numpy(array).to(device) for array in arrays]
            if device != "cpu":
                synchronize = xp.cuda.synchronize
        except ImportError:
            sys.exit("reference.py: --torch needs PyTorch, which is not installed")
        except (RuntimeError, AssertionError) as error:
            sys.exit(f"reference.py: --torch {device}: {error}")
    weights, x, x_fp = arrays
    options = given.bits, given.group_size, given.symmetric
    ran_on = environment(xp, device)
    groups = f"groups of {given.group_size}" if given.group_size < n else "one group a row"
    if not given.json:
        print(", ".join(f"{key} {value}" for key, value in ran_on.items()))
        print(f"out {m}, in {n}, {k} tokens, {given.bits} bits, {groups}")

    results, agree = [], True

    def stage(method, name, work, operations):
        result, seconds = timed(work, synchronize, given.repeat)
        rate = operations / seconds / 1e9
        results.append({"method": METHODS[method], "stage": name, "seconds": seconds, "GFLOP/s": rate})
        if not given.json:
            print(f"{METHODS[method]:8} {name:11} {1e3 * seconds:10.1f} ms {rate:9.1f} GFLOP/s", flush=True)
        return result

    for method in METHODS if given.method == "all" else [given.method]:
        plain = method == "gptq"
        inputs = (x,) if plain else (x, x_fp)
        if given.check:
            agree &= check(xp, method, weights, *accumulate(*inputs), options)
            continue
        h, d = stage(method, "accumulate", lambda: accumulate(*inputs), (1 if plain else 3) * k * n**2)
        stage(method, "solve", lambda: solve(xp, method, weights, h, d, *options),
              n**3 / 3 + m * n**2 if plain else n**3 + 2 * m * n**2)
    if given.json and not given.check:
        settings = {"out": m, "in": n, "tokens": k, "bits": given.bits, "group_size": given.group_size,
                    "symmetric": given.symmetric, "repeat": given.repeat}
        print(json.dumps({"environment": ran_on, "settings": settings, "results": results}, indent=2))
    sys.exit(not agree)


if __name__ == "__main__":
    main()
