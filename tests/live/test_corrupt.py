#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ironspool-corrupt damages members that lie still, and only those; whatever it does to one member loses no message."""
import json
import os
import re
import subprocess
import tempfile
import unittest

import harness
from harness import body_of, message, subject_of, wait_for


def corrupt(*words):
    r = subprocess.run([os.path.join(harness.BIN, "ironspool-corrupt"), *map(str, words)], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True)
    return r.returncode, r.stdout, r.stderr


class Corrupt(unittest.TestCase):
    def test_a_member_in_use_is_refused(self):
        with harness.Ironspool() as relay:
            relay.start()
            code, out, err = corrupt(relay.paths["a"], "superblock")
            self.assertEqual((code, out), (1, ""))
            self.assertIn("in use", err)
            relay.stop()
            self.assertEqual(corrupt(relay.paths["a"], "superblock", "--which", 0)[0], 0)

    def test_a_file_that_is_no_member_is_left_alone(self):
        with tempfile.NamedTemporaryFile() as f:
            f.truncate(1 << 20)
            code, out, err = corrupt(f.name, "bit-rot")
            self.assertEqual((code, out), (1, ""))
            self.assertIn("--no-member", err)
            self.assertEqual(harness.contents(f.name), bytes(1 << 20))
            self.assertEqual(corrupt("--no-member", f.name, "bit-rot")[0], 0)

    def test_it_changes_what_it_says_and_nothing_else(self):
        with harness.Ironspool() as relay:
            path = relay.paths["b"]
            before = harness.contents(path)
            code, out, _ = corrupt("--dry-run", path, "bit-rot", "--count", 5, "--seed", 3)
            self.assertEqual(code, 0)
            self.assertEqual(harness.contents(path), before)
            said = {int(offset): int(new, 16) for offset, new in re.findall(r"byte (\d+) flipped: \w\w -> (\w\w)", out)}
            self.assertEqual(len(said), 5)
            self.assertEqual(corrupt(path, "bit-rot", "--count", 5, "--seed", 3)[1] + "nothing was written (--dry-run)\n", out)
            after = harness.contents(path)
            self.assertEqual({i: after[i] for i in said}, said)
            for offset in said:
                after = after[:offset] + before[offset:offset + 1] + after[offset + 1:]
            self.assertEqual(after, before)

    def test_no_damage_to_one_member_loses_a_message(self):
        with harness.Ironspool(transport="hold") as relay:
            relay.start()
            sent, client = {}, relay.smtp()
            for i in range(20):
                text = message("m%d" % i, size=(500, 30_000)[i % 2])
                relay.send("s@test.example", "r@corrupt.example", text, client)
                sent["m%d" % i] = body_of(text)
            client.quit()
            wait_for("the queue", lambda: relay.queued() == 20)
            ids = [json.loads(line)["queue_id"] for line in relay.tool("queue", "list", "--json")[1].splitlines()]
            self.assertEqual(len(ids), 20)
            relay.stop()
            for path in relay.paths.values():  # the first member that holds some of them: two of three do
                frames = sum(corrupt(path, "frame", "--queue-id", i)[0] == 0 for i in ids)
                if frames:
                    break
            self.assertGreater(frames, 0)
            for words in (("superblock", "--zero", "--which", 1), ("image-header", "--which", 1), ("bit-rot", "--count", 200),
                          ("torn", "--range", "2M-2200K"), ("swap", "--range", "1M-1100K", "--with", "3M")):
                self.assertIn(corrupt(path, *words)[0], (0, 1))
            relay.start()
            for i in ids:
                code, out, err = relay.tool("queue", "show", i, "--raw")
                self.assertEqual(code, 0, err)
                self.assertEqual(body_of(out.encode()), sent[subject_of(out.encode())])
            self.assertEqual(relay.status()["pool"]["messages_lost"], 0)


if __name__ == "__main__":
    harness.main()
