"""public_names.py INCLUDE: every name of the library is documented in the umbrella of its part, or in a namespace `detail`.

An umbrella (residua.hpp, cuda.hpp, io.hpp, distributed.hpp) lists names in its first comment, behind the header that declares them:

///     core/view.hpp       MatrixView, read_only

The sources are as clang-format leaves them: what stands in the first column of a namespace is a declaration in it.
"""

import pathlib
import re
import sys


def without_requirement(line):
    """`requires(...) struct X` as `struct X`."""
    if not re.match(r"requires\s*\(", line):
        return "" if line.startswith("requires") else line
    depth = 0
    for i, character in enumerate(line):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ")":
            return line[i + 1 :].strip()
    return ""


def declared_name(line):
    """The name that a line at namespace scope declares, or None."""
    line = re.sub(r"\[\[.*?\]\]|\balignas\(.*\) (?=\w+ \{)", "", without_requirement(line)).strip()
    if not line or re.match(r"(#|//|}|\)|template|static_assert|using namespace|namespace|extern|RESIDUA_NAME_SOLVER)", line):
        return None
    if match := re.match(r"(?:struct|class|union|enum(?: class)?) (\w+)", line):
        return match[1]
    if match := re.match(r"(?:using|concept) (?:[\w:]+::)?(\w+)", line):
        return match[1]
    if "operator" in line:
        return None
    line = re.sub(r"RESIDUA_HOST_DEVICE|__launch_bounds__\(.*?\)|__global__|__device__|->.*", "", line)
    match = re.search(r"^[^(]*\b(\w+) = ", line) or re.search(r"(\w+)\(", line) or re.search(r"(\w+)(?:\{|;)", line)
    return match[1] if match else None


def names_of(header):
    """Names outside of `detail`."""
    namespaces, names = [], set()
    for line in header.read_text().splitlines():
        if match := re.match(r"(?:inline )?namespace ([\w:]+) \{", line):
            namespaces.append(match[1])
        elif line.startswith("}") and "// namespace" in line:
            namespaces.pop()
        elif namespaces and line[:1].strip() and "detail" not in "::".join(namespaces).split("::"):
            if name := declared_name(line):
                names.add(name)
        if match := re.match(r"RESIDUA_NAME_SOLVER\((\w+), ", line):
            names.add(match[1]) if match[1] != "Name" else None
    return names


def documented(umbrella, folder):
    """{header: names}, of an umbrella's first comment; what follows a colon is prose."""
    lists, header = {}, None
    for line in umbrella.read_text().splitlines():
        if match := re.match(r"///     (\S+\.(?:hpp|cuh))\s+(.*)", line):
            header, names = folder + match[1], match[2]
        elif match := re.match(r"///\s{8,}(.*)", line):
            names = match[1]
        else:
            header = header if line.startswith("///  ") else None
            continue
        if header:
            lists.setdefault(header, set()).update(re.findall(r"\w+", names.split(":")[0]))
    return lists


def included_by(root, umbrella):
    """Headers that an umbrella brings."""
    found, rest = set(), [umbrella]
    while rest:
        text = (root / rest.pop()).read_text()
        new = set(re.findall(r'#include "residua/(.*?)"', text)) - found
        found |= new
        rest += new
    return found


def part_of(path):
    if path.startswith("io/"):
        return "io.hpp"
    if path.startswith("distributed/"):
        return "distributed.hpp"
    return "cuda.hpp" if "/cuda/" in path else "residua.hpp"


def main():
    root = pathlib.Path(sys.argv[1]) / "residua"
    folders = {"residua.hpp": "", "cuda.hpp": "", "io.hpp": "io/", "distributed.hpp": ""}
    umbrellas = {name: documented(root / name, folder) for name, folder in folders.items()}
    failures = 0
    for header in sorted(root.rglob("*.[hc]*")):
        path = str(header.relative_to(root))
        if path in umbrellas:
            continue
        listed = umbrellas[part_of(path)].get(path, set())
        declared = names_of(header)
        for name in sorted(declared - listed):
            print(f"{path}: {name} is neither in a namespace detail nor listed in {part_of(path)}")
            failures += 1
        for name in sorted(listed - declared):
            print(f"{part_of(path)}: {name} is not declared by {path}")
            failures += 1
    for umbrella, lists in umbrellas.items():
        if not lists:
            print(f"{umbrella} lists no names")
            failures += 1
        for path in sorted(set(lists) - included_by(root, umbrella)):
            print(f"{umbrella} lists names of {path}, and does not include it")
            failures += 1
    return 1 if failures else 0


sys.exit(main())
