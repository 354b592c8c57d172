#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A pool gets whole again by itself: lost members are rebuilt on the others, rot is found by a scrub and repaired, a
member can be emptied and taken out, and a full pool refuses, delivers and takes mail again."""
import os
import random
import smtplib
import unittest

import harness
from harness import body_of, message, subject_of, wait_for


class Upkeep(unittest.TestCase):
    def filled(self, count=60, **changes):
        """A running pool with messages that wait."""
        self.relay = harness.Ironspool(transport="hold", **changes)
        self.addCleanup(self.relay.close)
        self.relay.start()
        self.sent = {}
        client = self.relay.smtp()
        for i in range(count):
            text = message("u-%d" % i, size=(500, 12_000, 120_000)[i % 3] + i)
            self.relay.send("s@test.example", "u@test.example", text, client)
            self.sent["u-%d" % i] = body_of(text)
        client.quit()
        return self.relay

    def whole(self):
        status = self.relay.status()
        return status["queue"]["index_ready"] and status["pool"]["messages_below_copies"] == 0 and \
            status["rebuild"]["bytes_remaining"] == 0 and status["pool"]["messages"] >= len(self.sent)

    def all_arrive(self):
        relay = self.relay
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        try:
            wait_for("an empty queue", relay.drained)
        except AssertionError as e:
            raise AssertionError("%s\n%s\n%s" % (e, relay.tool("status")[1], relay.log()[-3000:])) from None
        self.assertEqual({subject_of(m): body_of(m) for m in relay.delivered("u@test.example")}, self.sent)

    def test_after_a_rebuild_a_second_loss_costs_nothing(self):
        relay = self.filled()
        self.assertEqual(relay.stop(), 0)
        os.unlink(relay.paths["b"])
        relay.start()
        self.assertIn(relay.status()["pool"]["state"], ("degraded", "at-risk"))
        self.assertEqual(relay.tool("status")[0], 11)
        wait_for("the rebuild", self.whole)
        self.assertEqual(relay.stop(), 0)
        os.unlink(relay.paths["a"])
        relay.start()
        self.all_arrive()

    def test_kills_during_a_rebuild_lose_nothing(self):
        relay = self.filled(120)
        self.assertEqual(relay.stop(), 0)
        os.unlink(relay.paths["c"])
        relay.start(wait=False)
        for _ in range(4):
            relay.kill("spool")
        relay.wait_ready()
        wait_for("the rebuild", self.whole)
        self.assertEqual(relay.stop(), 0)
        self.assertEqual(relay.check()[1]["totals"]["lost"], 0)
        os.unlink(relay.paths["a"])
        relay.start()
        self.all_arrive()

    def test_a_scrub_finds_rot_under_a_running_pool_and_repairs_it(self):
        relay = self.filled()
        dice, hurt = random.Random(3), 0
        with open(relay.paths["b"], "r+b") as f:
            for block in range(32, os.path.getsize(relay.paths["b"]) // 4096 - 32):
                f.seek(block * 4096)
                if hurt < 40 and any(f.read(512)) and dice.random() < 0.3:
                    f.seek(block * 4096 + dice.randrange(4000))
                    f.write(dice.randbytes(8))
                    hurt += 1
            f.flush()
            os.fsync(f.fileno())
        self.assertGreater(hurt, 5)
        self.assertEqual(relay.tool("scrub", "start")[0], 0)
        scrub = wait_for("repaired errors", lambda: (relay.status()["scrub"]["errors_repaired"] > 0 and
                                                     relay.status()["scrub"]["state"] == "idle" and relay.status()["scrub"]))
        self.assertGreater(scrub["errors_found"], 0)
        code, out, err = relay.tool("scrub", "report")
        self.assertEqual(code, 0, err)
        self.assertIn("image_repaired", out)
        self.assertEqual(relay.status()["pool"]["messages_lost"], 0)
        self.all_arrive()

    def test_a_member_is_emptied_and_taken_out(self):
        relay = self.filled()
        code, _, err = relay.tool("member", "remove", "b")
        self.assertEqual(code, 1, err)
        self.assertEqual(relay.tool("member", "evacuate", "b")[0], 0)

        def removed():
            return relay.tool("member", "remove", "b")[0] == 0

        wait_for("an empty member", removed)
        self.assertEqual(relay.stop(), 0)
        os.unlink(relay.paths.pop("b"))
        relay.write_config()
        relay.start()
        self.assertEqual(relay.status()["pool"]["messages_below_copies"], 0)
        self.all_arrive()

    def test_a_member_that_is_not_there_is_exit_code_five(self):
        relay = self.filled(1)
        for verb in ("evacuate", "clear", "remove", "locate"):
            self.assertEqual(relay.tool("member", verb, "nobody")[0], 5, verb)

    def test_a_full_pool_refuses_delivers_and_takes_mail_again(self):
        relay = self.filled(1, extra='message_size_limit = "1M"\n')
        text = message("full", size=900_000)
        refused, client = None, relay.smtp()
        for i in range(200):
            try:
                relay.send("s@test.example", "full@test.example", text, client)
            except smtplib.SMTPResponseException as e:
                refused = e.smtp_code
                break
        self.assertEqual(refused, 452)
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start(wait=False)
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        wait_for("an empty queue", lambda: relay.tool("status")[0] in (0, 10, 11) and relay.drained())
        relay.wait_ready()
        self.assertEqual(len(relay.delivered("full@test.example")), i)
        wait_for("room", lambda: relay.status()["pool"]["accepting"] == "yes")

        def taken():  # slots come back one by one: a 452 on the way is what a sender is meant to sit out
            try:
                return relay.send("s@test.example", "again@test.example", text)
            except smtplib.SMTPResponseException as e:
                self.assertEqual(e.smtp_code, 452)
                return None

        for _ in range(20):
            wait_for("room for one more", taken)
        wait_for("new mail", lambda: len(relay.delivered("again@test.example")) == 20)


if __name__ == "__main__":
    harness.main()
