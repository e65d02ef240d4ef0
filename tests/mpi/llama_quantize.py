"""llama_quantize.py LLAMA_QUANTIZE MPIRUN [OPTION...]: a model quantized by 1, 2 and 4 ranks.

The same bytes by any number of them; a rank that is killed or stopped ends all, with a folder to go on in.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

program, mpirun = sys.argv[1], sys.argv[2:]
small = "--window 64 --calibration-windows 10 --eval-windows 3 --no-baseline --threads 1 --method qep --bits 3".split()
ordered = ["--reduction", "ordered"]
environment = {**os.environ, "OMP_NUM_THREADS": "1"}
limit = 120  # seconds, for a machine on which all else runs at the same time


def start(ranks, folder, *options):
    command = [*mpirun, "-np", str(ranks), program, *small, "--output", str(folder), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=limit)
    return process.returncode, out, err


def run(ranks, folder, *options):
    code, out, err = finish(start(ranks, folder, *options))
    assert code == 0, f"{ranks} ranks: exit {code}\n{err}"
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.is_file()}


def ranks_of(process):
    """Processes of the program that mpirun has started."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in children if program in pathlib.Path(f"/proc/{pid}/cmdline").read_text()]


def goes_on(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def after_first_block(folder, process):
    """Waits until a block is on disk, and the next one not yet."""
    deadline = time.monotonic() + limit
    while not any(folder.glob("model-0000[1-9]*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, "no block was written"
        time.sleep(0.005)


def check_broken(folder, break_rank, whole, *options):
    """break_rank(pid of a rank) in the middle of a run of four ranks; two go on."""
    process = start(4, folder, *ordered, *options)
    after_first_block(folder, process)
    pids = ranks_of(process)
    assert len(pids) == 4, pids
    begin = time.monotonic()
    break_rank(pids[-1])
    code, _, err = finish(process)
    while rest := [pid for pid in pids if goes_on(pid)]:
        assert time.monotonic() < begin + limit, f"ranks {rest} go on"
        time.sleep(0.1)
    assert code != 0, "a run without one of its ranks ended well"
    shards = [name for name in contents(folder) if name.startswith("model-") and name.endswith(".safetensors")]
    assert 0 < len(shards) < 7 and "config.json" not in contents(folder), shards
    why = [line for line in err.splitlines() if "ends the run" in line or "noticed that process" in line]
    print(f"ended after {time.monotonic() - begin:.1f} s with {len(shards)} of 7 shards: {why[:1]}")
    assert why, err
    run(2, folder, *ordered, "--resume")
    assert contents(folder) == whole, "a run that goes on with other ranks makes other bytes"
    return err


def main():
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        outputs = {ranks: run(ranks, root / str(ranks), *ordered) for ranks in (1, 2, 4)}
        whole = contents(root / "1")
        assert len(whole) == 12, sorted(whole)  # two of them are those of the tokenizer
        for ranks in (2, 4):
            assert contents(root / str(ranks)) == whole, f"{ranks} ranks make other bytes than one"
        print(outputs[4].strip())

        run(2, root / "fast")  # moments in the order of the engine: other bits, no worse model
        check_broken(root / "killed", lambda pid: os.kill(pid, signal.SIGKILL), whole)
        err = check_broken(root / "stopped", lambda pid: os.kill(pid, signal.SIGSTOP), whole, "--rank-timeout", "3")
        assert "another rank hangs" in err, err

        code, _, err = finish(start(2, root / "1", *ordered))  # refused by rank 0 alone
        assert code != 0 and "exists, expected --resume" in err, err
        blocks = subprocess.run([*mpirun, "-np", "2", program, "--format", "gguf-q4_k", "--output", str(root / "blocks")],
                                env=environment, capture_output=True, text=True, timeout=limit)
        assert blocks.returncode != 0 and "--format: processes are 2, expected 1" in blocks.stderr, blocks.stderr
    print("1 passed, 0 failed")


main()
