"""What a native heartbeat costs beside one in pure Python, in one run.

    python benches/heartbeat.py [--beats N] [--imports N] [--seconds S] [--interval S]

It prints the CPU time of a beat beside that of the three usual ways to send one with ``httpx``, the time of an import
beside that of ``httpx``, and how many beats were missed while C code kept the interpreter to itself for so many seconds.
The platform runs in a process of its own, whose cost is not counted.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

COMMON = f"""
import os, resource, sys, time
url, beats = sys.argv[1], int(sys.argv[2])
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
ID = "{ID}"
"""

NATIVE = COMMON + """
import molecule
agent = molecule.Agent(workspace_id=ID, platform_url=url, token="t0ken", configs_dir=sys.argv[3])
with molecule.HeartbeatLoop(agent, interval=0.001) as loop:
    loop.wait_accepted(30)
    began, first = cpu(), loop.status.accepted
    while loop.status.accepted < first + beats: time.sleep(0.1)
    print((cpu() - began) / (loop.status.accepted - first))
"""

HTTPX = COMMON + """
import asyncio, httpx
path, headers = "/registry/heartbeat", {"Origin": url, "Authorization": "Bearer t0ken"}
body = {"workspace_id": ID, "error_rate": 0.0, "sample_error": "", "active_tasks": 0, "uptime_seconds": 0}
def taken(answer):
    if answer.status_code == 200: answer.json().get("platform_inbound_secret")
"""

KEPT = HTTPX + """
with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
    for beat in range(beats + 1):
        taken(client.post(path, json=body))
        if beat == 0: began = cpu()
        time.sleep(0.001)
    print((cpu() - began) / beats)
"""

ASYNCIO = HTTPX + """
async def main():
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as client:
        for beat in range(beats + 1):
            taken(await client.post(path, json=body))
            if beat == 0: began = cpu()
            await asyncio.sleep(0.001)
        print((cpu() - began) / beats)
asyncio.run(main())
"""

ANEW = HTTPX + """
beats = beats // 10
for beat in range(beats + 1):
    taken(httpx.post(url + path, headers=headers, json=body, timeout=10))
    if beat == 0: began = cpu()
    time.sleep(0.001)
print((cpu() - began) / beats)
"""

IMPORT = "import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"

HELD = """
import ctypes, sys, time, molecule
agent = molecule.Agent(workspace_id="{id}", platform_url=sys.argv[1], token="t0ken", configs_dir=sys.argv[2])
with molecule.HeartbeatLoop(agent, interval={interval}) as loop:
    loop.wait_accepted(30)
    print(time.monotonic())
    ctypes.PyDLL(None).usleep({microseconds})
    print(time.monotonic())
"""


class Platform(BaseHTTPRequestHandler):
    """Accepts every heartbeat, and prints when it came."""

    protocol_version = "HTTP/1.1"
    # Head and body leave together; otherwise the second waits for the client's kernel to acknowledge the first.
    wbufsize = -1
    answer = b'{"status":"ok"}'

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)
        print(time.monotonic(), flush=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Beats:
    """A platform, and the times of the beats it saw."""

    def __init__(self) -> None:
        arguments = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.times: list[float] = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        """Collects until the process ends."""
        assert self.process.stdout is not None
        self.times.extend(float(line) for line in self.process.stdout)


def serve() -> None:
    """Serves, after saying where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Platform)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def run(source: str, *arguments: str) -> list[float]:
    """The numbers that ``source`` prints."""
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def imports(module: str, count: int) -> float:
    """The usual time of importing ``module``, once its files are in memory."""
    times = [run(IMPORT.format(module=module))[0] for _ in range(count + 1)]
    return statistics.median(times[1:])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beats", type=int, default=500)
    parser.add_argument("--imports", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--interval", type=float, default=20)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    platform = Beats()
    with tempfile.TemporaryDirectory() as folder:
        (native,) = run(NATIVE, platform.url, str(options.beats), folder)
        print(f"CPU of a beat: native {native * 1e6:.0f} us")
        for name, source in {"a Client kept": KEPT, "an AsyncClient kept": ASYNCIO, "httpx.post": ANEW}.items():
            (pure,) = run(source, platform.url, str(options.beats))
            print(f"CPU of a beat: httpx, {name} {pure * 1e6:.0f} us, native 1/{pure / native:.1f}")
        ours, theirs = imports("molecule", options.imports), imports("httpx", options.imports)
        print(f"import: molecule {ours * 1e3:.1f} ms, httpx {theirs * 1e3:.1f} ms, 1/{theirs / ours:.1f}")
        held = HELD.format(id=ID, interval=options.interval, microseconds=int(options.seconds * 1e6))
        began, ended = run(held, platform.url, folder)
    # The first beat came before, and the end of the wait may cut the last pause short.
    times = [began, *(at for at in platform.times if began < at <= ended), ended]
    missed = sum(int((later - earlier) / (options.interval * 1.25)) for earlier, later in itertools.pairwise(times))
    print(f"interpreter held for {options.seconds:g} s at {options.interval:g} s a beat: {len(times) - 2} beats, {missed} missed")
    platform.process.kill()


if __name__ == "__main__":
    main()
