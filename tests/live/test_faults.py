#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One member of a running pool does what bad disks do. Senders notice nothing, every message arrives as it was sent, and
what was injected is shown while it lasts."""
import json
import unittest

import harness
from harness import body_of, message, subject_of, wait_for

ALLOW = "fault_injection = yes\n"


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.relay = harness.Ironspool(extra=ALLOW, size="128M")
        cls.addClassCleanup(cls.relay.close)
        cls.relay.start()

    def tearDown(self):
        self.relay.tool("fault", "clear")
        self.relay.tool("member", "clear", "b")
        wait_for("a member that serves again", lambda: self.relay.status()["pool"]["accepting"] == "yes")

    def hurt(self, kind, *options):
        """Mail while one fault is injected into member b; returns b's status at the end."""
        relay, name = self.relay, kind + "@faults.example"
        code, out, err = relay.tool("fault", "add", kind, "--member", "b", "--for", "60s", *options)
        self.assertEqual(code, 0, out + err)
        shown = relay.status()["faults_injected"]
        self.assertEqual([(f["kind"], f["member"]) for f in shown], [(kind, "b")])
        sent, client = {}, relay.smtp()
        for i in range(60):
            text = message("%s-%d" % (kind, i), size=(300, 20_000, 100_000)[i % 3])
            relay.send("s@test.example", name, text, client)
            sent["%s-%d" % (kind, i)] = body_of(text)
        client.quit()
        wait_for("all of them", lambda: len(relay.delivered(name)) >= len(sent))
        self.assertEqual({subject_of(m): body_of(m) for m in relay.delivered(name)}, sent)
        status = relay.status()
        self.assertEqual(status["pool"]["messages_lost"], 0)
        return next(m for m in status["members"] if m["name"] == "b")

    def test_read_errors(self):
        self.hurt("read-error")

    def test_write_errors(self):
        self.hurt("write-error", "--rate", "0.3")

    def test_flush_errors(self):
        self.hurt("flush-error")

    def test_bit_rot(self):
        self.hurt("bit-rot", "--rate", "0.5")

    def test_torn_writes(self):
        self.hurt("torn-write", "--rate", "0.3")

    def test_lost_writes(self):
        self.hurt("lost-write", "--rate", "0.3")

    def test_misdirected_reads(self):
        self.hurt("misdirected-read", "--rate", "0.5")

    def test_a_slow_disk(self):
        self.hurt("slow", "--factor", "50")

    def test_a_disk_that_does_not_answer(self):
        self.hurt("stall")

    def test_a_disk_that_is_full(self):
        self.hurt("full")

    def test_a_disk_that_is_pulled_and_put_back(self):
        self.hurt("vanish")
        self.assertEqual(self.relay.tool("fault", "clear")[0], 0)
        wait_for("a healthy pool", lambda: self.relay.status()["pool"]["state"] == "healthy")

    def test_what_is_no_fault_is_refused(self):
        self.assertEqual(self.relay.tool("fault", "add", "nonsense", "--member", "b")[0], 2)
        self.assertEqual(self.relay.tool("fault", "add", "slow", "--member", "nobody")[0], 5)
        self.assertEqual(self.relay.tool("fault", "add", "slow")[0], 2)
        self.assertEqual(self.relay.tool("fault", "add", "slow", "--member", "b", "--for", "soon")[0], 2)
        self.assertEqual(json.loads(self.relay.tool("fault", "list", "--json")[1]), {"faults": []})


class Demonstration(unittest.TestCase):
    def test_a_disk_is_pulled_and_nothing_is_refused(self):
        with harness.Ironspool(extra=ALLOW, size="128M") as relay:
            relay.start()
            code, out, err = relay.tool("demo", "--pull-disk", "b")
            self.assertEqual(code, 0, out + err)
            self.assertIn("the pool is healthy", out)
            wait_for("600 messages", lambda: len(relay.delivered("demo@example.org")) == 600)

    def test_a_member_that_is_not_there_is_refused_before_anything_is_sent(self):
        with harness.Ironspool(extra=ALLOW) as relay:
            relay.start()
            code, _, err = relay.tool("demo", "--pull-disk", "nobody")
            self.assertEqual(code, 5)
            self.assertIn("a, b, c", err)
            self.assertEqual(relay.status()["relay"]["accepted"], 0)

    def test_neither_is_possible_where_it_is_not_allowed(self):
        with harness.Ironspool() as relay:
            relay.start()
            self.assertEqual(relay.tool("fault", "add", "slow", "--member", "b")[0], 3)
            self.assertEqual(relay.tool("demo")[0], 3)


if __name__ == "__main__":
    harness.main()
