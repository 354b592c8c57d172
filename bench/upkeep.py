#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What scrub, rebuild and bad members cost mail, and what mail leaves to them: interleaved windows, ratios of one run.

    bench/upkeep.py [--bin build/release/bin] [--dir /var/tmp] [--only scrub,rebuild,slow,dead,loss] [--pairs 30]
                    [--window 10] [--size 1G] [--sparse] [--fill 256M] [--rate 0] [--one-arm 0] [--json FILE]

scrub, rebuild   steady mail at half of what the pool takes (--rate sets it), windows with the work paused and running in
                 turns; the ratio of p99 acceptance of each pair, its median and a 90 % interval of the median, whether all
                 that was offered was accepted, and what the work did in the windows in which it ran.
slow             one member made 100 times slower under load: p99 by second, when the member left, and its evidence.
dead             4 members under load, one killed: how long until all that it had is made again. The same --fill with another --size
                 shows that live bytes count and not what a disk could hold.
loss             4 members under load, one killed, a second killed when a quarter is rebuilt, a third with 1 % of its blocks
                 unreadable: failed transactions, time until all that a living member has is whole again, what waits for the two,
                 whether it is there when they are back, the ids of what was reported lost, and what pool check says in the end.
--one-arm F      every member behind an arm that does one thing at a time, in F percent of the time a 7200 rpm disk takes
                 (100); made by `spooltool fault add one-arm`.

Nothing is typed in by hand, nothing fails a build. The issue's figures: --pairs 30 --window 10; dead, loss: --sparse --size 20G --fill 2G.
"""
import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

NAMES = "abcd"


def size_of(text):
    return int(float(text[:-1]) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[text[-1]]) if text[-1] in "KMG" else int(text)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Pool:
    def __init__(self, options, directory):
        self.options, self.dir = options, directory
        self.port, self.http = free_port(), free_port()
        self.conf = os.path.join(directory, "ironspool.conf")
        for name in ("state", "disks"):
            os.makedirs(os.path.join(directory, name))
        self.paths, self.loops, self.process = {n: f"{directory}/disks/{n}.member" for n in NAMES}, [], None
        if options.sparse:
            self.attach()
        self.write("hold")
        self.tool("pool", "create", "--size", str(options.size))

    def attach(self):
        """Members as loop devices over files with holes: `pool create` writes all of a file, and of a device only its ends."""
        for n, path in self.paths.items():
            with open(path, "wb") as f:
                f.truncate(self.options.size)
            self.loops.append(subprocess.run(["losetup", "--find", "--show", "--direct-io=on", path], check=True,
                                             stdout=subprocess.PIPE, text=True).stdout.strip())
            self.paths[n] = self.loops[-1]

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        for loop in self.loops:
            subprocess.run(["losetup", "--detach", loop])

    def write(self, transport):
        members = "\n".join(f'  member "{n}" {{ path = "{self.paths[n]}"  failure_domain = "{n}" }}' for n in NAMES)
        with open(self.conf, "w") as f:
            f.write(f"""hostname = "bench.example.org"
state_directory = "{self.dir}/state"
control_socket = "{self.dir}/control.sock"
user = "root"
log_file = "{self.dir}/log"
pool {{
  copies = 2
  min_copies = 1
  absent_wait = "2s"
  share_disk = yes
{members}
}}
listen "mx" {{ address = "127.0.0.1"  port = {self.port} }}
http {{ address = "127.0.0.1"  port = {self.http} }}
mynetworks = {{ "127.0.0.0/8" }}
default_transport = "{transport}"
fault_injection = yes
""")

    def start(self):
        self.stderr = open(f"{self.dir}/stderr", "ab")
        self.process = subprocess.Popen([f"{self.options.bin}/ironspoold", "-c", self.conf], stdout=self.stderr,
                                        stderr=self.stderr, start_new_session=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                    if s.recv(3) == b"220":
                        return self
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the daemon does not answer: see " + self.dir + "/log")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def tool(self, *words, check=True):
        done = subprocess.run([f"{self.options.bin}/spooltool", "-c", self.conf, *words], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if check and done.returncode not in (0, 10, 11, 12):
            raise SystemExit(f"spooltool {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def status(self):
        return json.loads(self.tool("status", "--json"))

    def events(self):
        return [json.loads(line) for line in self.tool("events", "--json").splitlines() if line.startswith("{")]

    def did(self, work):
        return sum(m["io"][work]["bytes"] for m in self.status()["members"])

    def load(self, *words):
        return subprocess.Popen([self.options.smtpload, *words, f"127.0.0.1:{self.port}"], stdout=subprocess.PIPE, text=True)

    def fill(self):
        n = max(200, self.options.fill // 30000)
        done = json.loads(self.load("-s", "20", "-m", str(n), "-l", "30000").communicate()[0])
        assert done["refused"] == 0, done
        self.stop()
        self.write("discard:")
        self.start()

    def arms(self):
        if self.options.one_arm:
            for n in NAMES:
                self.tool("fault", "add", "one-arm", "--member", n, "--factor", str(self.options.one_arm), "--for", "86400s")

    def half_rate(self):
        """Half of what the pool takes with as many sessions, measured here and now."""
        if self.options.rate:
            return self.options.rate
        m = 300 if self.options.one_arm else 3000
        rates = [json.loads(self.load("-s", str(self.options.sessions), "-m", str(m)).communicate()[0])["rate"]
                 for _ in range(2)]
        return max(rates) / 2


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(len(values) * p / 100) - 1)] if values else float("nan")


def interval(values, level=0.9):
    """Of the median, from order statistics: no assumption about the values."""
    values, n = sorted(values), len(values)
    best = (values[0], values[-1])
    for k in range(n // 2):
        inside = sum(math.comb(n, i) for i in range(k + 1, n - k)) / 2 ** n
        if inside >= level:
            best = (values[k], values[n - 1 - k])
    return best


class Load:
    """Steady mail for so many seconds; afterwards each message's end (on our clock), its time in ms and the reply."""

    def __init__(self, pool, rate, seconds):
        self.path = os.path.join(pool.dir, "timeline")
        self.offered = int(rate * seconds)
        self.begin = time.monotonic()
        self.process = pool.load("-s", str(pool.options.sessions), "-r", f"{rate:.3f}", "-m", str(self.offered),
                                 "-l", "4096", "-o", self.path)

    def end(self):
        out = self.process.communicate()[0]
        self.summary = json.loads(out) if out else {"accepted": 0, "refused": None}
        self.messages = [(self.begin + float(a), float(b), int(c)) for a, b, c in (x.split() for x in open(self.path))]
        return self

    def between(self, a, b):
        return [ms for end, ms, _ in self.messages if a <= end < b]


class Scrub:
    word, limit = "scrub", 1.1

    def __init__(self, pool):
        self.pool = pool

    def run(self):
        self.pool.tool("scrub", "resume")
        self.keep()

    def keep(self):
        if self.pool.status()["scrub"]["state"] != "running":
            self.pool.tool("scrub", "start")

    def pause(self):
        self.pool.tool("scrub", "pause")

    def floor(self):
        """Bytes a second over all members that one pass a day needs; the product reads no slower than 64 KiB/s of each member."""
        return sum(max(m["bytes_used"] / 86400, 65536) for m in self.pool.status()["members"])

    def tell(self, pace):
        used = sum(m["bytes_used"] for m in self.pool.status()["members"])
        return f"one pass over {used / 1e6:.0f} MB at this pace takes {used / pace / 3600 if pace else math.inf:.2f} h of its 24 h"


class Rebuild:
    word, limit = "rebuild", 1.25

    def __init__(self, pool):
        self.pool, self.at = pool, 0

    def run(self):
        self.pool.tool("rebuild", "resume")
        self.keep()

    def keep(self):
        """Always something to move: when a member is empty it comes back and the next one is emptied."""
        s = self.pool.status()
        if s["rebuild"]["bytes_remaining"] == 0:
            self.pool.tool("member", "clear", NAMES[self.at], check=False)
            self.at = (self.at + 1) % len(NAMES)
            self.pool.tool("member", "evacuate", NAMES[self.at], check=False)

    def pause(self):
        self.pool.tool("rebuild", "pause")

    def floor(self):
        """Bytes a second over source and target while the images of a member that is emptied can still be read."""
        return 2.0 * (2 << 20)

    def tell(self, pace):
        return f"{sum(m['io']['rebuild']['bytes'] for m in self.pool.status()['members']) / 2e6:.0f} MB moved in all"


def load_average():
    return " ".join(f"{x:.2f}" for x in os.getloadavg())


def pairs(pool, work, rate):
    o, before_load = pool.options, load_average()
    work.pause()
    load = Load(pool, rate, (2 * o.pairs + 1) * (o.window + 1) + 5)
    time.sleep(o.window / 2)
    windows, moved, active = [], 0, 0.0
    for i in range(2 * o.pairs):
        running = i % 2 == 1
        (work.run if running else work.pause)()
        time.sleep(0.5)  # what was under way is over, what begins has begun
        before, a = pool.did(work.word), time.monotonic()
        while time.monotonic() < a + o.window:
            time.sleep(min(1.0, max(0.0, a + o.window - time.monotonic())))
            if running:
                work.keep()
        b = time.monotonic()
        if running:
            moved += pool.did(work.word) - before
            active += b - a
        windows.append((a, b))
    work.pause()
    load.end()
    ratios, still, busy = [], [], []
    for i in range(o.pairs):
        x, y = load.between(*windows[2 * i]), load.between(*windows[2 * i + 1])
        if x and y:
            still.append(percentile(x, 99))
            busy.append(percentile(y, 99))
            ratios.append(busy[-1] / still[-1])
    low, high = interval(ratios)
    pace, floor = moved / active, work.floor()
    result = {"work": work.word, "one_arm": o.one_arm, "rate": round(rate, 1), "pairs": len(ratios), "window": o.window,
              "p99_ms_paused": round(statistics.median(still), 3), "p99_ms_running": round(statistics.median(busy), 3),
              "ratio": round(statistics.median(ratios), 3), "interval90": [round(low, 3), round(high, 3)],
              "offered": load.offered, "accepted": load.summary["accepted"],
              "refused": load.offered - load.summary["accepted"], "bytes_per_second": round(pace), "floor": round(floor),
              "load_average": [before_load, load_average()], "limit": work.limit}
    print(f"{work.word:8} {len(ratios)} pairs at {rate:.0f}/s: p99 {result['p99_ms_paused']} -> {result['p99_ms_running']} ms, "
          f"median ratio {result['ratio']} (90 %: {low:.3f} to {high:.3f}; limit {1.5 if o.one_arm else work.limit}), accepted "
          f"{load.summary['accepted']} of {load.offered}; pace {pace / 1e6:.2f} MB/s, {pace / floor:.2f} of its floor of "
          f"{floor / 1e6:.2f}; {work.tell(pace)}; load average {before_load} -> {load_average()}", flush=True)
    return result


def slow(pool, rate):
    load = Load(pool, rate, 75)
    time.sleep(15)
    at = time.monotonic()
    pool.tool("fault", "add", "slow", "--member", "b", "--factor", "100", "--for", "300s")
    left = None
    while time.monotonic() < at + 60:
        b = next(m for m in pool.status()["members"] if m["name"] == "b")
        if b["state"] in ("slow", "failing", "failed", "evacuating") and left is None:
            left = (time.monotonic() - at, b["state"], b["evidence"])
        time.sleep(0.2)
    load.end()
    normal = percentile(load.between(at - 10, at), 99)
    p99 = [percentile(load.between(at + s, at + s + 1), 99) for s in range(60)]
    above = [s for s in range(60) if not p99[s] <= 2 * normal]
    back = next((s for s in range(60) if s not in above), None)
    result = {"work": "slow", "p99_ms_before": normal, "seconds_until_twice_normal": back, "seconds_above_twice_normal": above,
              "p99_ms_by_second": [round(x, 2) for x in p99],
              "left_after": left and round(left[0], 1), "state": left and left[1], "evidence": left and left[2],
              "offered": load.offered, "accepted": load.summary["accepted"]}
    print(f"slow     p99 {normal:.2f} ms before; by second after: {result['p99_ms_by_second'][:6]}; within twice that in second "
          f"{back}, above in {above or 'none'} of 60; left after "
          f"{result['left_after']} s as {result['state']}: {result['evidence']}; accepted {load.summary['accepted']} of "
          f"{load.offered}", flush=True)
    pool.tool("fault", "clear", check=False)
    return result


def dead(pool, rate):
    """One member dies under load, and all of what it had is made again. What has to move are live bytes; what the member could hold
    is said beside it."""
    load, before_load, offered, accepted = Load(pool, rate, 20), load_average(), 0, 0
    time.sleep(5)
    used = next(m["bytes_used"] for m in pool.status()["members"] if m["name"] == "a")
    before, began, first, largest = pool.did("rebuild"), time.monotonic(), None, 0
    pool.tool("fault", "add", "vanish", "--member", "a", "--for", "3600s")
    while time.monotonic() < began + 590:
        s = pool.status()
        left = s["rebuild"]["bytes_remaining"]
        largest = max(largest, left)
        first = first or (time.monotonic() if s["rebuild"]["state"] == "running" else None)
        whole = time.monotonic()
        done = first and left == 0 and s["pool"]["messages_below_copies"] == 0
        if done or load.process.poll() is not None:
            load.end()
            offered, accepted = offered + load.offered, accepted + load.summary["accepted"]
        if done:
            break
        if load.process.poll() is not None:
            load = Load(pool, rate, 20)
        time.sleep(0.2)
    moved = pool.did("rebuild") - before
    result = {"work": "dead", "member_bytes": pool.options.size, "used_bytes": used, "live_bytes": pool.options.fill,
              "rate": round(rate, 1), "offered": offered, "accepted": accepted, "redundancy_lost_bytes": largest, "moved_bytes": moved,
              "seconds_until_whole": round(whole - began, 1), "seconds_of_rebuild": first and round(whole - first, 1),
              "below_copies": s["pool"]["messages_below_copies"], "load_average": [before_load, load_average()]}
    print(f"dead     members of {pool.options.size / (1 << 30):.0f} GiB, {used / 1e6:.0f} MB of it in use: "
          f"{largest / 1e6:.0f} MB had lost an image, all whole {result['seconds_until_whole']} s after the loss, "
          f"{result['seconds_of_rebuild']} s after the rebuild began, beside {rate:.0f}/s; "
          f"accepted {accepted} of {offered}; load average {before_load} -> {load_average()}", flush=True)
    return result


def loss(pool, rate):
    """What lies on the two members that are gone, and nowhere else, waits for them: it is the rest that has to be whole. When they
    are back nothing may be missing."""
    load, before_load = Load(pool, rate, 60), load_average()
    time.sleep(5)
    began = time.monotonic()
    pool.tool("fault", "add", "vanish", "--member", "a", "--for", "3600s")
    second, whole, left, since, most = None, None, None, began, 0
    while time.monotonic() < began + 600:
        s = pool.status()
        now = time.monotonic()
        most = max(most, s["rebuild"]["bytes_remaining"])
        if second is None and (now > began + 120 or 0 < s["rebuild"]["bytes_remaining"] < 0.75 * most):
            second = now
            pool.tool("fault", "add", "vanish", "--member", "b", "--for", "3600s")
            pool.tool("fault", "add", "media-error", "--member", "c", "--rate", "0.01", "--for", "3600s")
        rest = s["pool"]["messages_below_copies"], s["rebuild"]["bytes_remaining"], s["rebuild"]["state"] == "running"
        if rest != left:
            left, since = rest, now
        if second and now > second + 20 and not rest[2] and (rest[0] == 0 or now > since + 20):
            whole = since - began
            break
        time.sleep(0.5)
    load.end()
    waiting, lost = left[0], lost_ids(pool)
    pool.tool("fault", "clear", check=False)
    pool.stop()
    pool.start()
    until = time.monotonic() + 300
    while time.monotonic() < until:
        s = pool.status()
        if s["queue"]["index_ready"] and s["pool"]["messages_below_copies"] == 0:
            break
        time.sleep(1)
    lost = sorted(set(lost) | set(lost_ids(pool)))
    pool.stop()
    checked = json.loads(pool.tool("pool", "check", "--json"))
    result = {"work": "loss", "offered": load.offered, "accepted": load.summary["accepted"],
              "refused": load.summary["refused"], "seconds_until_whole": whole and round(whole, 1),
              "waiting_for_the_two": waiting, "below_copies_when_back": s["pool"]["messages_below_copies"],
              "messages_lost": s["pool"]["messages_lost"], "lost_ids": lost,
              "check_verdict": checked["verdict"], "check_faults": checked["totals"]["faults"],
              "load_average": [before_load, load_average()]}
    print(f"loss     accepted {result['accepted']} of {result['offered']}, refused {result['refused']}; all that a living member has "
          f"was whole after {result['seconds_until_whole']} s; {waiting} messages lay on the two dead members only and waited for "
          f"them; with these back "
          f"{result['below_copies_when_back']} below copies; lost {len(lost)}: {' '.join(lost) or 'none'}; "
          f"pool check: {result['check_verdict']}, {result['check_faults']} faults; "
          f"load average {before_load} -> {load_average()}", flush=True)
    return result


def lost_ids(pool):
    return [e.get("evidence", "").split(" ")[0].rstrip(":") for e in pool.events() if e.get("event") == "record_lost"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", default="build/release/bin")
    p.add_argument("--smtpload", default="")
    p.add_argument("--dir", default="/var/tmp")
    p.add_argument("--only", default="scrub,rebuild,slow,dead,loss")
    p.add_argument("--pairs", type=int, default=30)
    p.add_argument("--window", type=float, default=10)
    p.add_argument("--size", type=size_of, default=size_of("1G"))
    p.add_argument("--fill", type=size_of, default=size_of("256M"))
    p.add_argument("--rate", type=float, default=0)
    p.add_argument("--sessions", type=int, default=20)
    p.add_argument("--one-arm", type=int, default=0)
    p.add_argument("--sparse", action="store_true", help="members are loop devices over files with holes: needs root")
    p.add_argument("--json", default="")
    p.add_argument("--keep", action="store_true", help="leave the directory")
    o = p.parse_args()
    o.bin = os.path.abspath(o.bin)
    o.smtpload = o.smtpload or os.path.join(o.bin, "smtpload")
    if not os.path.exists(o.smtpload):
        raise SystemExit(f"{o.smtpload} is missing: cmake --build build/release --target smtpload")
    results = []
    for what in o.only.split(","):
        directory = tempfile.mkdtemp(prefix="upkeep-", dir=o.dir)
        pool = Pool(o, directory)
        try:
            pool.start().fill()
            pool.arms()
            rate = pool.half_rate()
            if what in ("scrub", "rebuild"):
                results.append(pairs(pool, Scrub(pool) if what == "scrub" else Rebuild(pool), rate))
            elif what == "slow":
                results.append(slow(pool, rate))
            elif what in ("dead", "loss"):
                results.append((dead if what == "dead" else loss)(pool, rate))
            else:
                raise SystemExit(f"{what}: scrub, rebuild, slow, dead or loss")
        finally:
            pool.close()
            if not o.keep:
                shutil.rmtree(directory, ignore_errors=True)
    if o.json:
        with open(o.json, "w") as f:
            json.dump(results, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
