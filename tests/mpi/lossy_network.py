"""lossy_network.py LLAMA_QUANTIZE MPIRUN [OPTION...]: four ranks in two network namespaces, two in each.

Between the namespaces lies a relay that holds every packet back for 1 ms and loses 1 % of them; what it does in user
space, tc's netem would do where the kernel has it. The checkpoint is that of one rank, byte for byte. Exit status 77,
to be skipped, without root, `ip netns` or /dev/net/tun.
"""

import collections
import fcntl
import os
import pathlib
import random
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

DELAY, LOSS = 0.001, 0.01
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
prefix = f"residua{os.getpid() % 10000}"
spaces = [prefix + "a", prefix + "b"]
addresses = ["10.77.0.1", "10.77.0.2"]


def sh(*words):
    subprocess.run(words, check=True, capture_output=True)


def open_tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


class Relay(threading.Thread):
    def __init__(self, devices):
        super().__init__(daemon=True)
        self.devices, self.packets, self.lost = devices, 0, 0
        self.random = random.Random(1)

    def run(self):
        waiting = collections.deque()  # (when, to whom, packet)
        other = {self.devices[0]: self.devices[1], self.devices[1]: self.devices[0]}
        while True:
            pause = max(0, waiting[0][0] - time.monotonic()) if waiting else 0.1
            for device in select.select(self.devices, [], [], pause)[0]:
                try:
                    packet = os.read(device, 65536)
                except OSError:  # the namespace is gone: the test is over
                    return
                self.packets += 1
                if self.random.random() < LOSS:
                    self.lost += 1
                else:
                    waiting.append((time.monotonic() + DELAY, other[device], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, device, packet = waiting.popleft()
                try:
                    os.write(device, packet)
                except BlockingIOError:  # the receiver's queue is full: lost
                    self.lost += 1


def connect():
    devices = []
    for space, address, name in zip(spaces, addresses, (prefix + "-0", prefix + "-1")):
        sh("ip", "netns", "add", space)
        devices.append(open_tun(name))
        sh("ip", "link", "set", name, "netns", space)
        for words in (["addr", "add", address + "/24", "dev", name], ["link", "set", name, "up"],
                      ["link", "set", "lo", "up"]):
            sh("ip", "-n", space, *words)
    relay = Relay(devices)
    relay.start()
    return relay


def main():
    program, mpirun = sys.argv[1], sys.argv[2:]
    small = ("--window 64 --calibration-windows 8 --eval-windows 2 --no-baseline --threads 1 --method gptq --bits 3"
             " --reduction ordered")
    try:
        relay = connect()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: no network namespaces with tun devices here: {error}")
        return 77
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        # What mpirun starts the daemon of the other namespace with, in the place of ssh: "agent ADDRESS COMMAND".
        agent = root / "agent"
        agent.write_text(f"""#!/bin/sh
shift
mkdir -p {root}/tmp
export TMPDIR={root}/tmp
exec ip netns exec {spaces[1]} unshare --uts sh -c "hostname {spaces[1]}; $*"
""")
        agent.chmod(0o755)
        command = ["ip", "netns", "exec", spaces[0], *mpirun, "-np", "4", "--host", ",".join(a + ":2" for a in addresses),
                   "--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self", "--mca", "pml", "ob1"]
        for layer in ("btl", "oob"):
            command += ["--mca", layer + "_tcp_if_include", "10.77.0.0/24"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        runs = {"alone": [program], "together": [*command, program]}
        for folder, start in runs.items():
            begin = time.monotonic()
            subprocess.run([*start, *small.split(), "--output", str(root / folder)], env=environment, check=True, timeout=280)
            print(f"{folder}: {time.monotonic() - begin:.1f} s")
        read = lambda folder: {p.name: p.read_bytes() for p in (root / folder).iterdir()}
        assert read("alone") == read("together"), "four ranks make other bytes than one"
    print(f"{relay.packets} packets, {relay.lost} of them lost")
    assert relay.lost > 0, "nothing was lost"
    print("1 passed, 0 failed")
    return 0


try:
    status = main()
finally:
    for space in spaces:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)
sys.exit(status)
