#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One member of three is damaged while the daemon is down. No message is lost, none is delivered damaged, and what was
delivered before is not delivered again."""
import os
import random
import shutil
import unittest

import harness
from harness import body_of, message, subject_of, wait_for

COUNT = 80


class Damage(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool(transport="hold")
        self.addCleanup(self.relay.close)
        self.relay.start()
        self.sent = {}
        self.fill("first", COUNT)

    def fill(self, name, count):
        client = self.relay.smtp()
        for i in range(count):
            subject = "%s-%d" % (name, i)
            text = message(subject, size=(400, 9000, 90_000)[i % 3] + i)
            self.relay.send("s@test.example", "d@test.example", text, client)
            self.sent[subject] = body_of(text)
        client.quit()

    def damaged(self, hurt, may_find=(11,)):
        """Stop, hurt, check, start, deliver; everything is there, once and whole."""
        self.assertEqual(self.relay.stop(), 0)
        hurt()
        code, report = self.relay.check()
        self.assertIn(code, may_find, report)
        self.assertEqual(report["totals"]["lost"], 0, report)
        self.deliver()

    def deliver(self):
        relay = self.relay
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        try:
            wait_for("an empty queue", relay.drained)
        except AssertionError as e:
            raise AssertionError("%s\n%s\n%s" % (e, relay.tool("queue", "list")[1][-2000:], relay.log()[-3000:])) from None
        arrived = [(subject_of(m), body_of(m)) for m in relay.delivered("d@test.example")]
        self.assertEqual(dict(arrived), self.sent)
        self.assertEqual(len(arrived), len(self.sent), "something was delivered twice")
        self.relay.send("s@test.example", "new@test.example", message("new mail"))
        wait_for("new mail", lambda: relay.delivered("new@test.example"))
        self.assertEqual(relay.status()["pool"]["messages_lost"], 0)
        self.assertEqual(relay.stop(), 0)
        self.assertNotEqual(relay.check()[0], 12)

    def path(self, member="b"):
        return self.relay.paths[member]

    def test_a_member_is_truncated_to_half(self):
        self.damaged(lambda: os.truncate(self.path(), os.path.getsize(self.path()) // 2))

    def test_a_member_is_truncated_to_nothing(self):
        self.damaged(lambda: os.truncate(self.path(), 0))

    def test_a_member_is_deleted(self):
        self.damaged(lambda: os.unlink(self.path()))

    def test_a_member_is_overwritten_with_zeros(self):
        def zero():
            with open(self.path(), "r+b") as f:
                for _ in range(os.path.getsize(self.path()) >> 20):
                    f.write(bytes(1 << 20))
        self.damaged(zero)

    def test_a_member_is_overwritten_with_random_bytes(self):
        def scribble():
            dice = random.Random(4)
            with open(self.path(), "r+b") as f:
                for _ in range(os.path.getsize(self.path()) >> 20):
                    f.write(dice.randbytes(1 << 20))
        self.damaged(scribble)

    def test_a_member_rots_in_five_hundred_places(self):
        def rot():
            place = random.Random(5)
            with open(self.path(), "r+b") as f:
                for _ in range(500):
                    f.seek(place.randrange(os.path.getsize(self.path()) - 64))
                    f.write(place.randbytes(place.randrange(1, 64)))
        self.damaged(rot, may_find=(0, 11))

    def test_single_bits_flip_in_the_used_part_of_a_member(self):
        def flip():
            place = random.Random(6)
            with open(self.path(), "r+b") as f:
                for _ in range(64):
                    at = place.randrange(65536, 8 << 20)
                    f.seek(at)
                    byte = f.read(1)[0]
                    f.seek(at)
                    f.write(bytes([byte ^ (1 << place.randrange(8))]))
        self.damaged(flip, may_find=(0, 11))

    def test_the_superblocks_of_a_member_are_gone(self):
        def wipe():
            with open(self.path(), "r+b") as f:
                f.write(bytes(65536))
                f.seek(os.path.getsize(self.path()) - 65536)
                f.write(bytes(65536))
        self.damaged(wipe)

    def test_one_superblock_copy_of_every_member_is_gone(self):
        def wipe():
            for member in harness.MEMBERS:
                with open(self.path(member), "r+b") as f:
                    f.write(bytes(16384))
        self.damaged(wipe)

    def test_a_member_of_another_pool_is_in_its_place(self):
        with harness.Ironspool() as other:
            self.damaged(lambda: shutil.copyfile(other.paths["b"], self.path()))

    def test_two_members_are_swapped(self):
        def swap():
            os.rename(self.path("a"), self.path("a") + ".x")
            os.rename(self.path("b"), self.path("a"))
            os.rename(self.path("a") + ".x", self.path("b"))
        self.damaged(swap, may_find=(0, 11))

    def test_an_old_copy_of_a_member_returns(self):
        relay = self.relay
        self.assertEqual(relay.stop(), 0)
        shutil.copyfile(self.path(), relay.dir + "/old")
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        wait_for("an empty queue", relay.drained)
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="hold")
        relay.start()
        before = dict(self.sent)
        self.fill("second", 20)
        self.assertEqual(relay.stop(), 0)
        shutil.copyfile(relay.dir + "/old", self.path())
        self.sent = {k: v for k, v in self.sent.items() if k not in before}
        for name in os.listdir(relay.dir + "/mail/d@test.example/new"):
            os.unlink(relay.dir + "/mail/d@test.example/new/" + name)
        self.deliver()  # the first eighty are not among what comes now

    def test_the_index_is_gone(self):
        def forget():
            shutil.rmtree(self.relay.dir + "/state")
            os.mkdir(self.relay.dir + "/state")
        self.damaged(forget, may_find=(0,))

    def test_the_index_is_noise(self):
        def noise():
            dice = random.Random(11)
            for folder, _, files in os.walk(self.relay.dir + "/state"):
                for name in files:
                    with open(os.path.join(folder, name), "r+b") as f:
                        f.write(dice.randbytes(min(65536, os.path.getsize(os.path.join(folder, name)))))
        self.damaged(noise, may_find=(0,))

    def test_all_is_well_when_nothing_was_hurt(self):
        self.damaged(lambda: None, may_find=(0,))


if __name__ == "__main__":
    harness.main()
