"""Sums the kernel times of the last solve in a CSV file of Nsight Compute (gpu__time_duration.sum)."""

import csv
import re
import sys
from collections import defaultdict

rows = []
with open(sys.argv[1], newline="") as file:
    lines = [line for line in file if line.startswith('"')]
for row in csv.DictReader(lines):
    time = float(row["Metric Value"].replace(",", ""))
    unit = row["Metric Unit"]
    time *= {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3}[unit]
    rows.append((row["Kernel Name"], row["Grid Size"], time))

# a solve starts by reading the diagonal of H
starts = [i for i, row in enumerate(rows) if "GetDiagonal" in row[0]]
first = max(i for i in starts if len(rows) - i > 20) if starts else 0
total = defaultdict(lambda: [0, 0.0])
for name, grid, time in rows[first:]:
    short = re.sub(r"residua::(cuda::)?|<unnamed>::|\(.*", "", name)
    key = f"{short[:70]} {grid if 'sweep' not in short else ''}"
    total[key][0] += 1
    total[key][1] += time
print(f"{sys.argv[1]}: {sum(t for _, t in total.values()) / 1e3:.2f} ms in {len(rows) - first} kernels")
for name, (count, time) in sorted(total.items(), key=lambda item: -item[1][1])[:28]:
    print(f"{time:9.1f} us  {count:4d} x  {name}")
