#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures this build beside its peers on the same two devices, in turns, and prints medians, spread, paired ratios, and what
was to be reached.

    sudo bench/bench.py [--bin build/release/bin] [--rounds 5] [--scale 1.0] [--size 2G] [--only accept,single,...]

Peers: Postfix on ext4 and on btrfs raid1 (-o ssd), smtp-sink (stores nothing), and a plain loop of mirrored write +
fdatasync. Needs root (loop devices, mounts) and Debian's postfix and btrfs-progs; what is missing is said and left out.
Nothing is typed in by hand: every figure on the page comes from this run. It measures and never fails a build.
"""
import argparse, json, os, random, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

from peers import PORT, SINK_PORT, Devices, Ironspool, MemoryGroup, Postfix, Sink, device_counters, machine_busy, memory_mib, \
    processes_cpu, run, wait_port

HELD_IOPS, HELD_BYTES = 200, 150_000_000 # a disk drive's

def driver_source(sessions, messages, size):
    """smtp-source -d; returns (rate, CPU seconds of the driver)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    run("smtp-source", "-d", "-s", str(sessions), "-m", str(messages), "-l", str(size), "-f", "load@example.com",
        "-t", "sink@example.net", f"127.0.0.1:{PORT}")
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return messages / seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def driver_load(binaries, sessions, messages, size, pipelined=False):
    extra = ["-p"] if pipelined else []
    return json.loads(run(f"{binaries}/smtpload", "-s", str(sessions), "-m", str(messages), "-l", str(size), *extra,
                          f"127.0.0.1:{PORT}"))


def plain_loop(devices, block, seconds=3.0):
    """Mirrored write + fdatasync, one in flight: two threads, O_DIRECT."""
    import mmap, threading
    fds = [os.open(l, os.O_RDWR | os.O_DIRECT) for l in devices.loops]
    buffer = mmap.mmap(-1, block)
    times, offset = [], 1 << 20

    def one(fd, at):
        os.pwrite(fd, buffer, at)
        os.fdatasync(fd)
    begin = time.monotonic()
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as pool:
        while time.monotonic() - begin < seconds:
            t = time.monotonic()
            list(pool.map(one, fds, [offset, offset]))
            times.append(time.monotonic() - t)
            offset += block
            if offset > 256 << 20:
                offset = 1 << 20
    for fd in fds:
        os.close(fd)
    return {"rate": len(times) / (time.monotonic() - begin), "p50_ms": statistics.median(times) * 1e3}


# What is to be reached: figure, "value" or the peer it is divided by, at least or at most, how much.
TARGETS = [
    ("4 KiB, 50 senders: messages a second", "postfix-ext4", ">=", 7),
    ("4 KiB, 50 senders: messages a second", "postfix-btrfs", ">=", 7),
    ("4 KiB, 50 senders: messages a second", "smtp-sink", ">=", 0.7),
    ("4 KiB, 50 senders: CPU microseconds a message, all but the driver", "postfix-ext4", "<=", 0.1),
    ("4 KiB, 50 senders: CPU microseconds a message, the server's own processes", "postfix-ext4", "<=", 0.1),
    ("4 KiB, 50 senders: bytes written to each member per byte of mail", "value", "<=", 1.25),
    ("4 KiB, 50 senders: O_DSYNC writes and flushes a message and member", "value", "<=", 0.2),
    ("4 KiB, 1 sender: ms from end of data to 250, p50", "plain loop", "<=", 1.5),
    ("4 KiB, 1 sender: messages a second", "postfix-ext4", ">=", 2),
    ("4 KiB, 1 sender: messages a second", "postfix-btrfs", ">=", 2),
    ("1 MiB, 10 senders: messages a second", "postfix-ext4", ">=", 2.5),
    ("1 MiB, 10 senders: messages a second", "plain loop", ">=", 0.6),
    ("held, 4 KiB, 50 senders: messages a second", "postfix-btrfs", ">=", 15),
    ("held, 4 KiB, 50 senders: bytes written to each member per byte of mail", "value", "<=", 1.2),
    ("held, 4 KiB, 50 senders: O_DSYNC writes and flushes a message and member", "value", "<=", 0.1),
    ("accept + queue + deliver, 20 senders: messages a second", "postfix-ext4", ">=", 4),
    ("accept + queue + deliver, 20 senders: messages a second", "postfix-btrfs", ">=", 4),
    ("drain of the backlog: messages a second", "postfix-ext4", ">=", 4),
    ("memory, 200 idle sessions: MiB", "value", "<=", 64),
    ("memory, 100,000 queued: MiB", "value", "<=", 128),
    ("memory, 1,000,000 queued: MiB", "value", "<=", 256),
    ("restart: seconds until mail is accepted", "value", "<=", 1),
    ("restart: seconds until queued mail is delivered", "value", "<=", 2),
    ("restart, index deleted: seconds until mail is accepted", "value", "<=", 1),
    ("restart, index deleted: seconds until the index has all", "value", "<=", 10),
    ("queue list --json, warm: seconds", "value", "<=", 0.5),
    ("queue list --json, cold: seconds", "value", "<=", 0.5),
]


class Results:
    def __init__(self):
        self.figures = {}

    def note(self, what, who, value):
        self.figures.setdefault(what, {}).setdefault(who, []).append(value)

    def ratios(self, what, who):
        by = self.figures.get(what, {})
        ours, theirs = by.get("ironspool", []), by.get(who, [])
        return sorted(o / t for o, t in zip(ours, theirs)) if len(ours) == len(theirs) and all(theirs) else []

    def print(self):
        for what, by in self.figures.items():
            print(f"\n{what}")
            for who, values in by.items():
                print(f"  {who:18} median {statistics.median(values):12.2f}   ({min(values):.2f} - {max(values):.2f}, n={len(values)})")
            for who in by:
                ratios = self.ratios(what, who) if who != "ironspool" else []
                if ratios:
                    print(f"  ironspool / {who:14} median {statistics.median(ratios):6.2f}   ({ratios[0]:.2f} - {ratios[-1]:.2f}, paired)")
        print("\nto be reached")
        for what, against, way, bound in TARGETS:
            values = self.figures.get(what, {}).get("ironspool", []) if against == "value" else self.ratios(what, against)
            if values:
                got = statistics.median(values)
                met = got >= bound if way == ">=" else got <= bound
                over = "" if against == "value" else f" / {against}"
                print(f"  {'reached' if met else 'SHORT':8} {got:8.2f} {way} {bound:<6} {what}{over}")


def measure_accept(target, args, devices, results, label, sessions, messages, size):
    messages = max(sessions, int(messages * args.scale))
    ours = target.name == "ironspool"
    devices_held = label.startswith("held")
    target.start("hold")
    try:
        driver_source(min(sessions, 10), max(messages // 10, sessions), size)  # warm
        loops = devices.loops + [devices.state_loop]
        counters = [device_counters(l) for l in loops]
        durable = target.durable_ops() if ours else 0
        own, busy = processes_cpu(target.pids()), machine_busy()
        rate, driver = driver_source(sessions, messages, size)
        cpu, own = machine_busy() - busy - driver, processes_cpu(target.pids()) - own
        results.note(f"{label}: messages a second", target.name, rate)
        if not devices_held:
            results.note(f"{label}: CPU microseconds a message, all but the driver", target.name, cpu / messages * 1e6)
            results.note(f"{label}: CPU microseconds a message, the server's own processes", target.name, own / messages * 1e6)
        if target.name == "smtp-sink":
            return
        if ours:
            results.note(f"{label}: O_DSYNC writes and flushes a message and member", target.name,
                         (target.durable_ops() - durable) / messages)
            time.sleep(1)  # the index is written behind
        grown = [{k: device_counters(l)[k] - c[k] for k in c} for l, c in zip(loops, counters)]
        if target.name != "postfix-ext4":
            results.note(f"{label}: bytes written to each member per byte of mail", target.name,
                         sum(g["bytes"] for g in grown[:2]) / 2 / (messages * size))
        results.note(f"{label}: writes and flushes a message as the device counts them", target.name,
                     max(g["writes"] + g["flushes"] for g in grown[:2]) / messages)
        if ours:
            results.note(f"{label}: bytes written to the state directory's device per byte of mail", target.name,
                         grown[2]["bytes"] / (messages * size))
            results.note(f"{label}: writes and flushes a message, state directory's device", target.name,
                         (grown[2]["writes"] + grown[2]["flushes"]) / messages)
    finally:
        target.stop()


def bench_accept(targets, args, devices, results):
    for round_ in range(args.rounds):
        for label, sessions, messages, size in (("4 KiB, 50 senders", 50, 20000, 4096), ("1 MiB, 10 senders", 10, 600, 1 << 20)):
            if size > 4096:
                results.note(f"{label}: messages a second", "plain loop", plain_loop(devices, 1 << 20)["rate"])
            for target in random.sample(targets, len(targets)):
                if target.name == "smtp-sink" and size > 4096:
                    continue
                measure_accept(target, args, devices, results, label, sessions, messages, size)


def bench_held(targets, args, devices, results):
    if not devices.hold(0, 0):
        print("no blkio controller of cgroup v1 here: nothing is measured on members held to a drive's speed")
        return
    rates = {"ironspool": 20000, "postfix-btrfs": 1500, "postfix-ext4": 400}
    for round_ in range(args.rounds):
        for target in [t for t in random.sample(targets, len(targets)) if t.name in rates]:
            start, stop = target.start, target.stop

            def held_start(transport):  # made and mounted free, measured held
                start(transport)
                devices.hold(HELD_IOPS, HELD_BYTES)

            def free_stop():
                devices.hold(0, 0)
                stop()
            target.start, target.stop = held_start, free_stop
            try:
                measure_accept(target, args, devices, results, "held, 4 KiB, 50 senders", 50, rates[target.name], 4096)
            finally:
                target.start, target.stop = start, stop


def bench_single(targets, args, devices, results):
    for round_ in range(args.rounds):
        loop = plain_loop(devices, 8192)
        results.note("4 KiB, 1 sender: ms from end of data to 250, p50", "plain loop", loop["p50_ms"])
        for target in random.sample(targets, len(targets)):
            target.start("hold")
            try:
                driver_load(args.bin, 1, 300, 4096)
                r = driver_load(args.bin, 1, max(100, int(3000 * args.scale)), 4096)
                results.note("4 KiB, 1 sender: messages a second", target.name, r["rate"])
                results.note("4 KiB, 1 sender: ms from end of data to 250, p50", target.name, r["dot_ms"]["p50"])
            finally:
                target.stop()


def bench_ceiling(targets, args, devices, results):
    for round_ in range(args.rounds):
        for target in [t for t in targets if t.name in ("ironspool", "smtp-sink")]:
            target.start("hold")
            try:
                for pipelined in (False, True):
                    driver_load(args.bin, 50, 5000, 4096, pipelined)
                    r = driver_load(args.bin, 50, max(1000, int(40000 * args.scale)), 4096, pipelined)
                    results.note(f"own driver{', pipelining' if pipelined else ''}, 4 KiB, 50 senders: messages a second",
                                 target.name, r["rate"])
            finally:
                target.stop()


def sink_count(args):
    return subprocess.Popen(["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{SINK_PORT}", "1000"], stdout=subprocess.PIPE)


def sink_wait(sink, wanted, seconds=300):
    import select
    text, until = b"", time.time() + seconds
    while time.time() < until:
        if select.select([sink.stdout], [], [], 0.2)[0]:
            text = (text + os.read(sink.stdout.fileno(), 65536))[-64:]
        numbers = re.findall(rb"(\d+)[\r\n]", text)
        if numbers and int(numbers[-1]) >= wanted:
            return
    raise RuntimeError(f"only {text!r} of {wanted} arrived")


def bench_relay(targets, args, devices, results):
    messages = max(200, int(4000 * args.scale))
    backlog = max(500, int(10000 * args.scale))
    print(f"# backlog: {backlog} messages of 4 KiB")
    for round_ in range(args.rounds):
        for target in [t for t in random.sample(targets, len(targets)) if t.name != "smtp-sink"]:
            sink = sink_count(args)
            target.start(f"smtp:[127.0.0.1]:{SINK_PORT}")
            try:
                begin = time.monotonic()
                driver_source(20, messages, 4096)
                sink_wait(sink, messages)
                results.note("accept + queue + deliver, 20 senders: messages a second", target.name, messages / (time.monotonic() - begin))
            finally:
                target.stop()
                sink.kill()
                sink.wait()
        for target in [t for t in random.sample(targets, len(targets)) if t.name != "smtp-sink"]:
            sink = sink_count(args)
            target.start(f"smtp:[127.0.0.1]:{SINK_PORT}" if target.name == "ironspool" else "hold")
            try:
                if target.name == "ironspool":
                    sink.send_signal(signal.SIGSTOP)
                    sink.kill()
                    sink.wait()
                    driver_source(20, backlog, 4096)
                    sink = sink_count(args)
                    time.sleep(0.2)
                    begin = time.monotonic()
                    target.tool("queue", "retry", "--all")
                else:
                    driver_source(20, backlog, 4096)
                    with open(f"{target.conf}/main.cf", "a") as f:
                        f.write(f"\nsmtpd_client_restrictions =\nrelayhost = [127.0.0.1]:{SINK_PORT}\n")
                    run("postfix", "-c", target.conf, "reload")
                    time.sleep(1)
                    begin = time.monotonic()
                    target.release_all()
                sink_wait(sink, backlog)
                results.note("drain of the backlog: messages a second", target.name, backlog / (time.monotonic() - begin))
            finally:
                target.stop()
                sink.kill()
                sink.wait()


def fill(target, args, queued):
    """Until so many are queued; 1 KiB each."""
    missing = queued - target.status()["queue"]["messages"]
    if missing > 0:
        driver_load(args.bin, 50, missing, 1024)
    while target.status()["queue"]["messages"] < queued:
        time.sleep(0.1)


def sessions_open(count):
    sockets = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", PORT))
        s.recv(512)
        s.sendall(b"EHLO idle.example\r\n")
        s.recv(4096)
        sockets.append(s)
    return sockets


def bench_memory(targets, args, devices, results):
    """The work is done in a memory cgroup of twice the target, and the memory is read while it is there."""
    target = next(t for t in targets if t.name == "ironspool")
    target.group = MemoryGroup(128) if MemoryGroup.possible() else None
    if not target.group:
        print("no memory controller of cgroup v1 here: memory is measured without a limit")
    many, most = max(1000, int(100_000 * args.scale)), max(2000, int(1_000_000 * args.scale))
    print(f"# queued: {many} and {most} messages of 1 KiB")
    target.start("hold")
    try:
        sockets = sessions_open(200)
        results.note("memory, 200 idle sessions: MiB", target.name, memory_mib(target.pids()))
        for what, queued, limit in (("100,000 queued", many, 256), ("1,000,000 queued", most, 512)):
            if target.group:
                target.group.limit(limit)
            begin = time.monotonic()
            fill(target, args, queued)
            results.note(f"memory, {what}: seconds to fill the queue", target.name, time.monotonic() - begin)
            results.note(f"memory, {what}: MiB", target.name, memory_mib(target.pids()))
            listed = target.tool("queue", "list", "--json").count("\n")
            results.note(f"memory, {what}: MiB after queue list --json of {listed}", target.name, memory_mib(target.pids()))
        for s in sockets:
            s.close()
        if target.group:
            results.note("memory, in a cgroup of 128, 256, 512 MiB: processes killed for it", target.name, target.group.kills())
    finally:
        target.stop()
        if target.group:
            target.group.close()
        target.group = None


def until_accepted(seconds=60):
    """One message, offered until it has its 250; a server that is not there yet or says 4xx is asked again."""
    import smtplib
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with smtplib.SMTP("127.0.0.1", PORT, timeout=seconds) as s:
                s.sendmail("load@example.com", ["sink@example.net"], "Subject: first\r\n\r\nafter the restart\r\n")
                return
        except (OSError, smtplib.SMTPException):
            time.sleep(0.01)
    raise RuntimeError("nothing was accepted after a restart")


def restart_once(target, args, results, what, index_lost, sink):
    target.kill()
    if index_lost:
        shutil.rmtree(f"{target.state}/index", ignore_errors=True)
    begin = time.monotonic()
    target.run_daemon()
    until_accepted()
    results.note(f"{what}: seconds until mail is accepted", target.name, time.monotonic() - begin)
    if sink:
        sink_wait(sink, 2)  # the new one, and one that was queued
        results.note(f"{what}: seconds until queued mail is delivered", target.name, time.monotonic() - begin)
        return
    while not target.status()["queue"]["index_ready"]:
        time.sleep(0.02)
        if time.monotonic() - begin > 120:
            break
    results.note(f"{what}: seconds until the index has all", target.name, time.monotonic() - begin)


def bench_restart(targets, args, devices, results):
    target = next(t for t in targets if t.name == "ironspool")
    queued = max(1000, int(100_000 * args.scale))
    print(f"# restart and list: {queued} queued messages of 1 KiB")
    target.start(f"smtp:[127.0.0.1]:{SINK_PORT}")
    try:
        for round_ in range(args.rounds):
            fill(target, args, queued)
            restart_once(target, args, results, "restart, index deleted", True, None)
            target.tool("queue", "retry", "--all")  # else all wait for the end of their back-off
            sink = sink_count(args)
            restart_once(target, args, results, "restart", False, sink)
            sink.kill()
            sink.wait()
        fill(target, args, queued)
        for round_ in range(args.rounds):
            begin = time.monotonic()
            listed = target.tool("queue", "list", "--json").count("\n")
            results.note("queue list --json, warm: seconds", target.name, time.monotonic() - begin)
        for round_ in range(args.rounds):
            target.kill()
            run("sync")
            with open("/proc/sys/vm/drop_caches", "w") as f:
                f.write("3")
            target.run_daemon()
            while not target.status()["queue"]["index_ready"]:
                time.sleep(0.02)
            begin = time.monotonic()
            listed = target.tool("queue", "list", "--json").count("\n")
            results.note("queue list --json, cold: seconds", target.name, time.monotonic() - begin)
        print(f"# listed: {listed} lines")
    finally:
        target.stop()


def bench_profile(targets, args, devices, results):
    """Where the CPU goes in the daemon's processes: perf's samples, the first lines of its report."""
    if not shutil.which("perf"):
        print("perf is not here: apt-get install linux-perf")
        return
    target = next(t for t in targets if t.name == "ironspool")
    for label, sessions, messages, size in (("4 KiB, 50 senders", 50, 40000, 4096), ("1 MiB, 10 senders", 10, 1000, 1 << 20)):
        messages = max(sessions, int(messages * args.scale))
        data = f"{target.directory}/perf.data"
        target.start("hold")
        try:
            driver_source(min(sessions, 10), max(messages // 10, sessions), size)
            command = ["perf", "record", "-F", "2999", "-g", "-p", ",".join(map(str, target.pids())), "-o", data, "-q"]
            perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            rate, _ = driver_source(sessions, messages, size)
            perf.send_signal(signal.SIGINT)
            perf.wait()
            print(f"\n# {label}: {messages} messages, {rate:.0f} a second while being sampled")
            print("# " + " ".join(command[:6]) + " PIDS")
            for sort, count in (("comm,dso", 10), ("comm,dso,sym", 25)):
                print(f"# perf report --no-children --sort {sort} -g none")
                report = run("perf", "report", "-i", data, "--no-children", "--sort", sort, "-g", "none")
                lines = [l.rstrip() for l in report.splitlines() if l.strip() and not l.startswith("#")]
                print("\n".join(lines[:count]))
        finally:
            target.stop()


BENCHES = {"accept": bench_accept, "single": bench_single, "held": bench_held, "ceiling": bench_ceiling, "relay": bench_relay,
           "memory": bench_memory, "restart": bench_restart, "profile": bench_profile}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="build/release/bin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--size", default="2G")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--only", default=",".join(BENCHES))
    args = parser.parse_args()
    args.bin = os.path.abspath(args.bin)
    if os.geteuid() != 0:
        sys.exit("bench.py needs root for loop devices and mounts: sudo bench/bench.py")
    size = int(args.size[:-1]) << {"G": 30, "M": 20}[args.size[-1]]
    directory = tempfile.mkdtemp(prefix="ironspool-bench-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    devices = Devices(directory, size)
    targets = [Ironspool(args.bin, devices, f"{directory}/ironspool", args.engine)]
    os.makedirs(targets[0].directory)
    if shutil.which("smtp-source") and shutil.which("smtp-sink"):
        targets.append(Sink())
    else:
        sys.exit("smtp-source and smtp-sink are not here: apt-get install postfix")
    if shutil.which("postfix"):
        targets.append(Postfix(devices, directory, "ext4"))
        if shutil.which("mkfs.btrfs"):
            targets.append(Postfix(devices, directory, "btrfs"))
        else:
            print("btrfs-progs is not here: no comparison with btrfs raid1")
    results = Results()
    print(f"# {time.strftime('%Y-%m-%d')}, kernel {os.uname().release}, {os.cpu_count()} CPUs, rounds {args.rounds}, scale {args.scale}")
    print("# command: " + " ".join(sys.argv), flush=True)
    try:
        for name in args.only.split(","):
            before = os.getloadavg()[0]
            BENCHES[name](targets, args, devices, results)
            print(f"# {name}: load average before {before:.1f}, after {os.getloadavg()[0]:.1f}", flush=True)
    except subprocess.CalledProcessError as e:
        print(f"{e}\n{e.stdout}\n{e.stderr}", file=sys.stderr)
        raise
    finally:
        results.print()
        devices.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
