#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any moment, under load: whatever got its 250 is delivered, byte for byte, and the pool checks clean.
IRONSPOOL_KILLS=200 kills each kind of process so often with each engine."""
import itertools
import os
import random
import smtplib
import threading
import time
import unittest

import harness
from harness import body_of, message, subject_of, wait_for

ROUNDS = int(os.environ.get("IRONSPOOL_KILLS", "3"))
ENGINES = ("auto", "threads")  # auto: io_uring where the kernel allows it
DUPLICATES_PER_KILL = 50  # deliveries under way at one time
SENDERS = 4


class Load:
    """Senders that never give up; remembers what got its 250."""

    def __init__(self, relay):
        self.relay, self.acknowledged, self.lock, self.over = relay, {}, threading.Lock(), False
        self.number = itertools.count()
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(SENDERS)]
        for t in self.threads:
            t.start()

    def work(self, seed):
        size = random.Random(seed)
        client = None
        while not self.over:
            subject = "load-%d" % next(self.number)
            text = message(subject, size=size.choice((200, 2000, 20_000, 200_000)))
            try:
                client = client or self.relay.smtp()
                self.relay.send("s@test.example", "load@test.example", text, client)
            except (OSError, EOFError, smtplib.SMTPException):
                if client:
                    client.close()
                client = None
                time.sleep(0.02)
                continue
            with self.lock:
                self.acknowledged[subject] = body_of(text)

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def stop(self):
        self.over = True
        for t in self.threads:
            t.join(120)


class Kill(unittest.TestCase):
    def kill_rounds(self, roles):
        for engine in ENGINES:
            with self.subTest(engine=engine):
                self.kill_with(engine, roles)

    def kill_with(self, engine, roles):
        with harness.Ironspool(size=128 * 1024 * 1024, io_engine=engine) as relay:
            relay.start()
            relay.engine = relay.status()["io_engine"]
            load = Load(relay)
            moment = random.Random(len(roles))
            for role in roles:
                before = load.count()
                wait_for("10 more messages before the kill", lambda: load.count() >= before + 10)
                time.sleep(moment.random() * 0.3)
                relay.kill(role)
                relay.wait_ready()
            before = load.count()
            wait_for("10 more messages after the last kill", lambda: load.count() >= before + 10)
            load.stop()
            wait_for("an empty queue", relay.drained)
            arrived = {}
            for stored in relay.delivered("load@test.example"):
                arrived.setdefault(subject_of(stored), []).append(body_of(stored))
            missing = [s for s in load.acknowledged if s not in arrived]
            self.assertEqual(missing, [], "acknowledged and not delivered, of %d" % len(load.acknowledged))
            wrong = [s for s, bodies in arrived.items() if s in load.acknowledged
                     and any(b != load.acknowledged[s] for b in bodies)]
            self.assertEqual(wrong, [], "delivered with other bytes")
            twice = sum(len(bodies) - 1 for bodies in arrived.values())
            self.assertLessEqual(twice, DUPLICATES_PER_KILL * len(roles))
            print("%d kills of %s, engine %s: %d acknowledged, all delivered, %d twice" %
                  (len(roles), "/".join(sorted(set(roles))), relay.engine, load.count(), twice), flush=True)
            self.assertEqual(relay.stop(), 0)
            code, report = relay.check()
            self.assertEqual((code, report["findings"]), (0, []))

    def test_the_spool_process_is_killed(self):
        self.kill_rounds(["spool"] * ROUNDS)

    def test_the_relay_process_is_killed(self):
        self.kill_rounds(["relay"] * ROUNDS)

    def test_the_supervisor_is_killed_and_all_with_it(self):
        self.kill_rounds(["supervisor"] * ROUNDS)

    def test_one_after_the_other_is_killed(self):
        order = random.Random(1)
        self.kill_rounds([order.choice(("relay", "spool", "supervisor")) for _ in range(ROUNDS)])


class Waiting(unittest.TestCase):
    def test_what_waits_in_the_queue_outlives_every_kill(self):
        with harness.Ironspool(transport="hold") as relay:
            relay.start()
            sent = {"wait-%d" % i: message("wait-%d" % i, size=300 + 997 * i) for i in range(60)}
            for text in sent.values():
                relay.send("s@test.example", "wait@test.example", text)
            for role in ("spool", "supervisor", "relay"):
                relay.kill(role)
                relay.wait_ready()
                wait_for("60 messages in the queue", lambda: relay.queued() == 60)
            self.assertEqual(relay.stop(), 0)
            relay.write_config(transport="maildir:%s/mail" % relay.dir)
            relay.start()
            wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
            wait_for("60 messages", lambda: len(relay.delivered("wait@test.example")) == 60)
            arrived = {subject_of(m): body_of(m) for m in relay.delivered("wait@test.example")}
            self.assertEqual(arrived, {s: body_of(m) for s, m in sent.items()})


if __name__ == "__main__":
    harness.main()
