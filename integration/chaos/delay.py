#!/usr/bin/env python3
"""Holds up packets and lets later ones overtake them: `delay.py INTERFACE` makes a TUN interface of that name, and sends whatever is routed to
it on its way again after 1 to 5 ms, one packet of twenty after 30 ms more. Prints `ready` when the interface is there, and, when its
standard input ends, how many packets passed and how many were overtaken.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 1, 0x1000
USUAL, LATE, ONE_OF = (0.001, 0.005), 0.030, 20


def main() -> None:
    name = sys.argv[1]
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "up", "txqueuelen", "10000"], check=True)
    print("ready", flush=True)
    waiting: list[tuple[float, int, bytes]] = []
    passed = overtaken = newest = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, number, packet = heapq.heappop(waiting)
            os.write(tun, packet)
            overtaken += number < newest
            newest = max(newest, number)
        rest = max(0.0, waiting[0][0] - now) if waiting else None
        readable, _, _ = select.select([tun, sys.stdin], [], [], rest)
        if sys.stdin in readable and not sys.stdin.buffer.read1(1):
            print(f"{passed} {overtaken}", flush=True)
            return
        while tun in readable:
            try:
                packet = os.read(tun, 65536)
            except BlockingIOError:
                break
            passed += 1
            late = LATE if random.randrange(ONE_OF) == 0 else 0.0
            heapq.heappush(waiting, (time.monotonic() + random.uniform(*USUAL) + late, passed, packet))


if __name__ == "__main__":
    main()
