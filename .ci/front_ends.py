#!/usr/bin/env python3
"""Checks sources without compiling them: the front end alone judges language, templates and warnings.

    .ci/front_ends.py <build folder> [<regular expression of source paths>]

Runs every command of the folder's compile_commands.json whose source matches, with code generation left out
(clang++ and g++: -fsyntax-only; nvcc: intermediate code of the device only), as many at a time as there are cores, and
fails if one of them does. A source that has several commands is checked once.
"""
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def front_end(entry):
    command = shlex.split(entry["command"])
    output = command.index("-o")
    del command[output : output + 2]
    compile_only = command.index("-c") if "-c" in command else command.index("-ptx")
    if any(os.path.basename(word) == "nvcc" for word in command[:2]):  # a launcher may come first
        command[compile_only] = "-ptx"
        command += ["-o", os.devnull]
    else:
        command[compile_only] = "-fsyntax-only"
    return command


def check(entry):
    result = subprocess.run(front_end(entry), cwd=entry["directory"], capture_output=True, text=True)
    return entry["file"], result.returncode, result.stdout + result.stderr


def main():
    folder, pattern = sys.argv[1], re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    with open(os.path.join(folder, "compile_commands.json")) as file:
        entries = {entry["file"]: entry for entry in json.load(file)}  # one a source
    chosen = [entry for source, entry in entries.items() if pattern.search(source)]
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, status, text in pool.map(check, chosen):
            failed += status != 0
            if status:
                print(f"FAILED {source}", text, sep="\n", flush=True)
    print(f"{len(chosen)} sources, {failed} failed")
    sys.exit(failed != 0 or not chosen)


main()
