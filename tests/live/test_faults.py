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
        """Every fault meets a member in service: one that failed comes back with a restart."""
        self.relay.tool("fault", "clear")
        self.relay.tool("member", "clear", "b")
        if self.state_of_b() not in ("healthy", "suspect"):
            self.relay.stop()
            self.relay.start()
        wait_for("a member that serves again", lambda: self.state_of_b() in ("healthy", "suspect"))

    def state_of_b(self):
        return next(m["state"] for m in self.relay.status()["members"] if m["name"] == "b")

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
        relay.tool("scrub", "start")  # fresh mail is delivered from memory: nothing else reads
        if kind != "stale-read":      # what it could show may be freed by then
            wait_for("an operation it struck", lambda: relay.status()["faults_injected"][0]["injected"] > 0)
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

    def test_misdirected_writes(self):
        self.hurt("misdirected-write", "--rate", "0.1")

    def test_stale_reads(self):
        self.hurt("stale-read", "--rate", "0.5")

    def test_a_disk_with_one_arm(self):
        self.hurt("one-arm", "--factor", "10")

    def test_a_slow_disk(self):
        self.hurt("slow", "--factor", "50")

    def test_a_disk_that_does_not_answer(self):
        self.hurt("stall")

    def test_a_disk_that_is_full(self):
        self.hurt("full")

    def test_a_disk_that_is_pulled_and_put_back(self):
        self.hurt("vanish")
        wait_for("an absent member", lambda: self.state_of_b() == "absent")
        self.assertEqual(self.relay.tool("fault", "clear")[0], 0)
        wait_for("a healthy pool", lambda: self.relay.status()["pool"]["state"] == "healthy")

    def test_a_disk_that_is_pulled_returns_by_command(self):
        self.hurt("vanish")
        wait_for("an absent member", lambda: self.state_of_b() == "absent")
        code, out, err = self.relay.tool("fault", "add", "return", "--member", "b")
        self.assertEqual(code, 0, out + err)
        wait_for("a healthy pool", lambda: self.relay.status()["pool"]["state"] == "healthy")
        self.assertEqual(self.relay.status()["faults_injected"], [])
        self.assertEqual(self.relay.tool("fault", "add", "return", "--member", "b")[0], 5)

    def test_a_fault_ends_by_itself_and_both_ends_are_events(self):
        code, out, err = self.relay.tool("fault", "add", "read-error", "--member", "b", "--seed", "77", "--for", "1s")
        self.assertEqual(code, 0, out + err)
        wait_for("its end", lambda: self.relay.status()["faults_injected"] == [])
        events = [json.loads(line) for line in self.relay.tool("events", "--json")[1].splitlines()]
        told = {e["event"]: e["evidence"] for e in events if "seed 77" in e["evidence"] and e["member"] == "b"}
        self.assertEqual(set(told), {"fault_injected", "fault_ended"})
        self.assertIn("over after", told["fault_ended"])
        metrics = self.relay.tool("metrics")[1]
        self.assertIn("ironspool_faults_injected 0\n", metrics)
        self.assertIn("ironspool_fault_injection_enabled 1\n", metrics)

    def test_what_is_no_fault_is_refused(self):
        self.assertEqual(self.relay.tool("fault", "add", "nonsense", "--member", "b")[0], 2)
        self.assertEqual(self.relay.tool("fault", "add", "slow", "--member", "nobody")[0], 5)
        self.assertEqual(self.relay.tool("fault", "add", "slow")[0], 2)
        self.assertEqual(self.relay.tool("fault", "add", "slow", "--member", "b", "--for", "soon")[0], 2)
        for words, said in ((("slow", "--factor", "1"), "factor"), (("bit-rot", "--factor", "5"), "--rate"),
                            (("vanish", "--rate", "0.5"), "as a whole"), (("bit-rot", "--rate", "nan"), "--rate"),
                            (("bit-rot", "--range", "1G-2G"), "end of the member"),
                            (("bit-rot", "--range", "0-1M", "--queue-id", "3ZZZZZZZZZZZ1"), "give one")):
            code, _, err = self.relay.tool("fault", "add", *words, "--member", "b")
            self.assertIn(code, (1, 2), words)
            self.assertIn(said, err)
        self.assertEqual(json.loads(self.relay.tool("fault", "list", "--json")[1]), {"faults": []})


class Demonstration(unittest.TestCase):
    def test_a_disk_is_pulled_and_nothing_is_refused(self):
        with harness.Ironspool(extra=ALLOW, size="128M") as relay:
            relay.start()
            code, out, err = relay.tool("demo", "--pull-disk", "b")
            self.assertEqual(code, 0, out + err)
            self.assertIn("the pool is healthy", out)
            wait_for("600 messages", lambda: len(relay.delivered("demo@example.org")) == 600)

    def pulled(self, relay):
        relay.start()
        code, out, err = relay.tool("demo", "--pull-disk", "b", "--json")
        self.assertEqual(code, 0, out + err)
        told = json.loads(out)
        self.assertEqual((told["pulled"], told["done"], [s["accepted"] for s in told["sent"]]), ("b", True, [200] * 3))
        self.assertIn("the disk is back", err)
        wait_for("600 messages", lambda: len(relay.delivered("demo@example.org")) == 600)

    def test_it_is_whole_with_as_many_disks_as_copies(self):
        with harness.Ironspool(extra=ALLOW, size="128M") as relay:
            del relay.paths["c"]
            relay.write_config()
            self.assertEqual(relay.tool("pool", "create", "--size", "128M", "--force=a", "--force=b")[0], 0)
            self.pulled(relay)

    def test_it_is_whole_with_a_spare(self):
        with harness.Ironspool(extra=ALLOW, size="128M", absent_wait="10m") as relay:
            relay.member_keys["c"] = "  spare = yes"
            relay.write_config()
            self.assertEqual(relay.tool("pool", "create", "--size", "128M", "--force=a", "--force=b", "--force=c")[0], 0)
            self.pulled(relay)

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
