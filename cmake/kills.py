#!/usr/bin/env python3
"""Kills programs at random moments, fills disks under them, and compares what is left with what an undisturbed run writes.

    cmake/kills.py FOLDER_OF_PROGRAMS SCRATCH_FOLDER [KILLS]

After every kill each file that has its final name holds either all bytes of the old output or all of the new one, never of both
in what a reader would take for a model, and the same command ends in the new bytes. KILLS (1000) go to llama_quantize, a tenth
as many each to its GGUF output and to quantize_layer.

Full and read-only disks are small tmpfs mounts, which take root; without it that part is left out by name.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import time

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "examples/data/tiny-llama"
INDEX = "model.safetensors.index.json"
BLOCKS = 2


def cut_model(target):
    """The shipped model without all but its first blocks."""
    raw = (SHIPPED / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    kept, parts, at = {}, [], 0
    for name, entry in header.items():
        if name == "__metadata__" or (name.startswith("model.layers.") and int(name.split(".")[2]) >= BLOCKS):
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [at, at + end - begin]}
        parts.append(data[begin:end])
        at += end - begin
    text = json.dumps(kept).encode()
    text += b" " * (-len(text) % 8)
    target.mkdir()
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    config = json.loads((SHIPPED / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "num_hidden_layers": BLOCKS}))
    for name in ("calibration.txt", "eval.txt"):
        (target / name).write_bytes((SHIPPED / name).read_bytes()[:4096])


def start(command):
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(command):
    """Exit code and standard error of a run that nobody kills."""
    process = start(command)
    _, errors = process.communicate()
    return process.returncode, errors


def succeed(command):
    began = time.time()
    code, errors = finish(command)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {code}:\n{errors}")
    return time.time() - began


def kill_at_random(command, seconds):
    """Whether the program was killed; it may end first."""
    process = start(command)
    time.sleep(random.uniform(0, 1.1 * seconds))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(map(str, command))}\nended with {process.returncode}")
    return process.returncode != 0


def is_aside(name):
    """Files that no reader opens: what was being written, and the lock."""
    return name.startswith(".residua-")


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not is_aside(p.name)} if folder.is_dir() else {}


def check_folder(folder, new, old):
    """After a kill: whole files, all of the old model or none of it beside the new one's index."""
    found = contents(folder)
    for name, content in found.items():
        if content not in (new.get(name), old.get(name)):
            sys.exit(f"{folder / name} is neither the old file nor the new one")
    if INDEX in found and found not in (new, old):
        missing = [name for name in new if found.get(name) != new[name]]
        if found[INDEX] == new[INDEX]:
            sys.exit(f"{folder} has the new index, and not the new {missing}")
        sys.exit(f"{folder} has the old index beside {sorted(found)}")
    return found


def kill_checkpoints(run, scratch, count):
    """llama_quantize into a new folder, and over an old model. The files of a whole output."""
    whole, older, work = (scratch / name for name in ("whole", "older", "work"))
    for folder in (whole, older):
        shutil.rmtree(folder, ignore_errors=True)
    seconds = succeed([*run, "--output", whole])
    succeed([*run, "--symmetric", "none", "--output", older])
    new, old = contents(whole), contents(older)
    killed = resumed = kept = 0
    while killed < count:
        shutil.rmtree(work, ignore_errors=True)
        replaces = random.random() < 0.5
        if replaces:
            shutil.copytree(older, work)
        how = "--overwrite" if replaces else "--resume"
        for _ in range(random.randint(1, 4)):  # kills of one model, each of which goes on with the last one
            if not kill_at_random([*run, "--output", work, how], seconds):
                break
            killed += 1
            found = check_folder(work, new, old if replaces else {})
            kept += replaces and found == old
            is_ours = all(new.get(name) == content for name, content in found.items())
            how = "--resume" if is_ours else "--overwrite"
        succeed([*run, "--output", work, how])
        resumed += how == "--resume"
        left = {p.name: p.read_bytes() for p in work.iterdir()}
        if left != new:
            sys.exit(f"{work} is not {whole}, after {how}")
    print(f"{' '.join(run[-2:])}: {killed} kills; {kept} left the old model whole, "
          f"{resumed} models were finished by --resume, all with the same bytes", flush=True)
    return new


def kill_files(title, command, target, others, count):
    """A program that writes one file: it is absent, the old one or the new one. `others`: arguments for the old one."""
    seconds = succeed([*command, target, "--overwrite"])
    new = target.read_bytes()
    older = target.with_name("older" + target.suffix)
    succeed([*command, older, "--overwrite", *others])
    old = older.read_bytes()
    older.unlink()
    killed = replaced = 0
    while killed < count:
        target.unlink(missing_ok=True)
        expected = None
        if random.random() < 0.5:
            target.write_bytes(old)
            expected = old
        killed += kill_at_random([*command, target, "--overwrite"], seconds)
        found = target.read_bytes() if target.exists() else None
        if found not in (expected, new):
            sys.exit(f"{target} is neither the old file nor the new one")
        replaced += found == new
    succeed([*command, target, "--overwrite"])
    if target.read_bytes() != new:
        sys.exit(f"{target} is not what the first run wrote")
    for left in target.parent.glob(".residua-*"):
        left.unlink()
    print(f"{title}: {killed} kills; {replaced} left the new file, the others the old one or none", flush=True)


def fill_disks(run, whole, layer, scratch):
    """Disks of all sizes up to what the output needs, then a larger one; and disks that are read only."""
    disk = scratch / "disk"
    disk.mkdir()
    needed = sum(map(len, whole.values()))

    def mount(options, *, again=False):
        command = ["mount", "-o", ("remount," if again else "") + options]
        if not again:
            command += ["-t", "tmpfs", "residua"]
        return subprocess.run([*command, disk], capture_output=True).returncode == 0

    if not mount("size=64k"):
        print("full and read-only disks: left out, for mounting takes root")
        return
    try:
        full = 0
        for part in range(0, 105, 5):
            shutil.rmtree(disk / "q", ignore_errors=True)
            mount(f"size={max(4096, needed * part // 100)}", again=True)
            code, errors = finish([*run, "--output", disk / "q"])
            check_folder(disk / "q", whole, {})
            if any(is_aside(p.name) for p in (disk / "q").glob(".*")):
                sys.exit(f"{disk / 'q'} keeps what was half written")
            if code == 0:
                continue
            if code != 2 or "No space left on device" not in errors:
                sys.exit(f"a full disk ended with {code}: {errors}")
            full += 1
            mount(f"size={2 * needed}", again=True)
            succeed([*run, "--output", disk / "q", "--resume"])
            if contents(disk / "q") != whole:
                sys.exit("what went on from a full disk has other bytes")
        shutil.rmtree(disk / "q")
        for command in ([*run, "--output", disk / "q"], [*layer, disk / "q.safetensors"]):
            mount("ro", again=True)
            code, errors = finish(command)
            if code != 2 or "Read-only file system" not in errors or any(disk.iterdir()):
                sys.exit(f"a read-only disk ended with {code}: {errors}")
            mount("rw,size=8192", again=True)
            code, errors = finish(command)
            left = [p for p in disk.rglob("*") if p.is_file()]
            if code != 2 or "No space left on device" not in errors or left:
                sys.exit(f"a full disk ended with {code} and left {left}: {errors}")
            shutil.rmtree(disk / "q", ignore_errors=True)
    finally:
        subprocess.run(["umount", disk])
    print(f"disks: {full} full ones at as many places, all gone on from to the same bytes; read-only ones refused")


def main():
    programs, scratch = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    model = scratch / "model"
    cut_model(model)
    llama = [programs / "llama_quantize", "--model", model, "--window", "64", "--calibration-windows", "2",
             "--eval-windows", "1", "--no-baseline", "--threads", "1"]
    rtn, gptq = ([*llama, "--method", method] for method in ("rtn", "gptq"))
    layer = [programs / "quantize_layer", "--method", "rtn", "--threads", "1", "--output"]
    kill_checkpoints(rtn, scratch, count - count // 4)
    whole = kill_checkpoints(gptq, scratch, count // 4)
    kill_files("llama_quantize --format gguf-q4_0", [*rtn, "--format", "gguf-q4_0", "--output"],
               scratch / "new.gguf", ["--rotate", "hadamard"], count // 10)
    kill_files("quantize_layer", layer, scratch / "new.safetensors", ["--bits", "3"], count // 10)
    fill_disks(gptq, whole, layer, scratch)


if __name__ == "__main__":
    main()
