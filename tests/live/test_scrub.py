#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Silent damage in a thousand used places of one member, headers included, under a running pool: one pass finds all of it,
repairs all of it, counts it and names the member; what is read meanwhile is right. The pool is kept still: mail waits, and
only segments that are mostly live mail are hurt, so that none of them is compacted or freed meanwhile."""
import json
import os
import random
import struct
import unittest

import harness
from harness import body_of, message, subject_of, wait_for

BLOCK = 4096
SLOTS_AT = 65536
IMAGE_MAGIC, FRAME_MAGIC = b"ISPLSEG1", b"ISPFRAM1"
PLACES = 1000


def segment_text(incarnation, counter):
    return "%016x-%u" % (incarnation, counter)


class Scrub(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool(transport="hold")
        self.addCleanup(self.relay.close)
        # nobody is called slow because this machine is
        self.relay.change_config('absent_wait = "2s"', 'absent_wait = "2s"\n    degrade_after = "1m"')
        self.relay.start()

    def fill(self, count, size):
        self.sent, self.ids = {}, []
        client = self.relay.smtp()
        for i in range(count):
            text = message("scrub-%d" % i, size=size + i)
            self.ids.append(self.relay.send("s@test.example", "u@test.example", text, client))
            self.sent["scrub-%d" % i] = body_of(text)
        client.quit()

    def live_bytes(self):
        """(segment's incarnation, counter) -> bytes of our messages there."""
        live = {}
        for qid in self.ids:
            code, out, err = self.relay.tool("queue", "show", qid, "--json")
            self.assertEqual(code, 0, err)
            place = json.loads(out)["place"]
            live[place["segment"]] = live.get(place["segment"], 0) + place["length"]
        return live

    def slot_bytes(self, member):
        with open(member, "rb") as f:
            f.seek(88)  # superblock: behind magic, digest, version, copy, features, two uuids, number and slot count
            return struct.unpack("<Q", f.read(8))[0]

    def used_places(self, member, live):
        """Offsets of header and frame blocks of the images there that are mostly live mail."""
        slot_bytes, places = self.slot_bytes(member), []
        with open(member, "rb") as f:
            size = os.path.getsize(member)
            for slot in range((size - 2 * SLOTS_AT) // slot_bytes):
                at = SLOTS_AT + slot * slot_bytes
                f.seek(at)
                head = f.read(BLOCK)
                if head[16:24] != IMAGE_MAGIC:
                    continue
                segment = struct.unpack_from("<QQ", head, 64)
                if live.get(segment_text(*segment), 0) < slot_bytes // 3:
                    continue
                places.append(at)
                offset = BLOCK
                while offset + BLOCK <= slot_bytes:
                    f.seek(at + offset)
                    frame = f.read(BLOCK)
                    if frame[16:24] != FRAME_MAGIC or struct.unpack_from("<QQQ", frame, 40) != (*segment, offset):
                        break
                    blocks = struct.unpack_from("<I", frame, 28)[0]
                    places += range(at + offset, at + offset + blocks * BLOCK, BLOCK)
                    offset += blocks * BLOCK
        return places

    def report(self):
        code, out, err = self.relay.tool("scrub", "report", "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def passes(self):
        return self.relay.status()["scrub"]["passes"]

    def idle(self):
        scrub = self.relay.status()["scrub"]
        return scrub["state"] == "idle" and scrub["passes"] > 0

    def one_pass(self):
        before = self.passes()
        self.assertEqual(self.relay.tool("scrub", "start")[0], 0)
        wait_for("the end of a pass", lambda: self.passes() > before, patience=300)
        return self.report()["last"]

    def hurt(self, member, places, dice):
        before = {}
        with open(member, "r+b") as f:
            for at in places:
                f.seek(at)
                before[at] = f.read(BLOCK)
                within = dice.randrange(BLOCK)
                f.seek(at + within)
                f.write(bytes([before[at][within] ^ (1 << dice.randrange(8))]))
            f.flush()
            os.fsync(f.fileno())
        return before

    def test_a_thousand_bad_places_are_found_and_repaired_in_one_pass(self):
        relay, dice = self.relay, random.Random(41)
        self.fill(190, 55_000)
        wait_for("the first pass", self.idle, patience=300)
        live = self.live_bytes()
        candidates = self.used_places(relay.paths["b"], live)
        self.assertGreater(len(candidates), PLACES)
        headers = [at for at in candidates if (at - SLOTS_AT) % self.slot_bytes(relay.paths["b"]) == 0]
        rest = [at for at in candidates if at not in set(headers)]
        places = headers + dice.sample(rest, PLACES - len(headers))
        before = self.hurt(relay.paths["b"], places, dice)
        self.assertEqual(len(before), PLACES)
        for copy in (0, 16384, harness.MEMBER_BYTES - 16384):  # superblocks: any update may mend them before the pass sees them
            self.hurt(relay.paths["b"], [copy], dice)
        for qid in dice.sample(self.ids, 10):
            code, out, err = relay.tool("queue", "show", qid, "--raw")
            self.assertEqual(code, 0, err)
            self.assertIn(self.sent[subject_of(out.encode())].decode().replace("\r\n", "\n"), out.replace("\r\n", "\n"))
        last = self.one_pass()
        self.assertTrue(last["complete"], last["missed"])
        self.assertEqual(last["places_left"], 0, [f for f in last["findings"] if f["outcome"] != "repaired"])
        self.assertEqual(last["places_repaired"], last["places_found"])
        members = {m["name"]: m for m in last["members"]}
        found = members["b"]["places_found"]
        self.assertEqual(members["b"]["places_repaired"], sum(found.values()))
        mended_by_reads = PLACES - found["frame"] - found["image-header"]
        self.assertEqual(found["image-header"], len(headers))
        self.assertGreaterEqual(mended_by_reads, 0)
        self.assertLessEqual(mended_by_reads, 10 * 256)  # the ten that were read first
        for name in ("a", "c"):
            self.assertEqual(sum(members[name]["places_found"].values()), 0, members[name])
        serial = next(m["serial"] for m in relay.status()["members"] if m["name"] == "b")
        for finding in last["findings"]:
            self.assertEqual((finding["member"], finding["serial"]), ("b", serial))
        with open(relay.paths["b"], "rb") as f:
            for at, was in before.items():
                f.seek(at)
                self.assertEqual(f.read(BLOCK), was, "the place at %d is not what it was" % at)
        again = self.one_pass()
        self.assertEqual(again["places_found"], 0, again["findings"])
        code, text, err = relay.tool("scrub", "report")
        self.assertEqual(code, 0, err)
        self.assertIn("last pass, number %d" % again["pass"], text)
        self.assertEqual(relay.status()["pool"]["messages_lost"], 0)
        self.assertEqual(relay.stop(), 0)
        code, check = relay.check()
        self.assertEqual((code, check["totals"]["faults"]), (0, 0), check)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        wait_for("an empty queue", relay.drained, patience=180)
        self.assertEqual({subject_of(m): body_of(m) for m in relay.delivered("u@test.example")}, self.sent)

    def test_a_pause_lasts_over_a_restart_and_a_start_ends_it(self):
        relay = self.relay
        self.fill(3, 20_000)
        wait_for("the first pass", self.idle, patience=300)
        completed = relay.status()["scrub"]["last_completed"]
        self.assertIsNotNone(completed)
        self.assertEqual(relay.tool("scrub", "pause")[0], 0)
        relay.kill("spool")
        relay.wait_ready()
        scrub = relay.status()["scrub"]
        self.assertEqual(scrub["state"], "paused")
        self.assertEqual(scrub["last_completed"], completed)
        report = self.report()
        self.assertIsNone(report["last"])
        self.assertEqual(relay.tool("scrub", "report", "now")[0], 2)
        last = self.one_pass()
        self.assertTrue(last["complete"])
        self.assertEqual(relay.status()["scrub"]["state"], "idle")


if __name__ == "__main__":
    harness.main()
