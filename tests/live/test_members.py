#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Members come and go under a running pool: added, replaced, emptied and removed, stood by for as spares, found in the
rack; and whatever is typed wrongly changes nothing and says what to type instead."""
import json
import os
import signal
import unittest

import harness
from harness import body_of, message, subject_of, wait_for


class Members(unittest.TestCase):
    def filled(self, count=40, sizes=(500, 12_000, 120_000), **changes):
        """A running pool with messages that wait."""
        self.relay = harness.Ironspool(transport="hold", **changes)
        self.addCleanup(self.relay.close)
        self.relay.start()
        self.sent = {}
        self.send(count, sizes)
        return self.relay

    def send(self, count, sizes=(500, 12_000, 120_000)):
        client = self.relay.smtp()
        for _ in range(count):
            i = len(self.sent)
            text = message("m-%d" % i, size=sizes[i % len(sizes)] + i)
            self.relay.send("s@test.example", "u@test.example", text, client)
            self.sent["m-%d" % i] = body_of(text)
        client.quit()

    def member(self, name):
        return next((m for m in self.relay.status()["members"] if m["name"] == name), None)

    def state(self, name):
        found = self.member(name)
        return found and found["state"]

    def whole(self):
        status = self.relay.status()
        return status["queue"]["index_ready"] and status["pool"]["messages_below_copies"] == 0 and \
            status["rebuild"]["bytes_remaining"] == 0 and status["pool"]["messages"] >= len(self.sent)

    def configure(self, name, keys=""):
        """Writes the member into the configuration and has the daemon read it."""
        relay = self.relay
        relay.paths[name] = os.path.join(relay.dir, "disks", name + ".member")
        relay.member_keys[name] = keys
        relay.write_config()
        self.reload()

    def reload(self):
        relay = self.relay
        before = relay.log().count("reload: ")
        relay.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: relay.log().count("reload: ") > before)
        relay.wait_ready()

    def tool(self, code, *words):
        """Runs spooltool, expects this exit code, returns what it said."""
        got, out, err = self.relay.tool(*words)
        self.assertEqual(got, code, "%s: %s%s" % (" ".join(words), out, err))
        return out + err

    def all_arrive(self):
        relay = self.relay
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        wait_for("an empty queue", relay.drained)
        self.assertEqual({subject_of(m): body_of(m) for m in relay.delivered("u@test.example")}, self.sent)

    def lose(self, *names):
        """The disks are gone for good."""
        self.assertEqual(self.relay.stop(), 0)
        for name in names:
            os.unlink(self.relay.paths[name])
        self.relay.start()

    def test_a_member_is_added_while_mail_flows_and_holds_its_share(self):
        relay = self.filled()
        self.configure("d")
        self.tool(0, "member", "add", "d", "--dry-run")
        dry = json.loads(relay.tool("member", "add", "d", "--dry-run", "--json")[1])
        self.assertEqual((dry["dry_run"], dry["name"], dry["path"], dry["replaces"]), (True, "d", relay.paths["d"], ""))
        self.assertGreater(dry["bytes"], 0)
        self.assertFalse(os.path.exists(relay.paths["d"]))
        epoch = relay.status()["pool"]["epoch"]
        self.assertIn("in the pool", self.tool(0, "member", "add", "d"))
        relay.wait_ready()
        status = relay.status()
        self.assertEqual(self.state("d"), "healthy")
        self.assertGreater(status["pool"]["epoch"], epoch)
        self.assertEqual(os.path.getsize(relay.paths["d"]) // 1_000_000, os.path.getsize(relay.paths["a"]) // 1_000_000)
        self.send(60)
        wait_for("mail on the new member", lambda: self.member("d")["bytes_used"] > 0)
        relay.kill("spool")
        relay.wait_ready()
        self.assertEqual(self.state("d"), "healthy")
        wait_for("all images", self.whole)
        self.lose("a")
        self.all_arrive()

    def test_what_must_not_be_added_is_refused_by_name_and_nothing_changes(self):
        relay = self.filled(3)
        self.assertIn("write member", self.tool(5, "member", "add", "nobody"))
        self.assertIn("is needed", self.tool(2, "member", "add"))
        self.assertIn("not expected", self.tool(2, "member", "add", "d", "e"))
        self.assertIn("a size is", self.tool(2, "member", "add", "d", "--size", "large"))
        self.assertIn("already", self.tool(1, "member", "add", "a"))
        relay.paths["d"] = os.path.join(relay.dir, "disks", "d.member")
        relay.write_config()
        self.assertIn("reload", self.tool(5, "member", "add", "d"))  # the daemon has not read it yet
        with open(relay.paths["d"], "wb") as f:
            f.write(b"somebody's file" * 10_000)
        self.reload()
        self.assertTrue("spooltool member add d" in relay.log(), "the log names what to type")
        self.assertIn("--force=d", self.tool(1, "member", "add", "d"))
        self.assertIn("too small", self.tool(1, "member", "add", "d", "--force=d", "--size", "2M"))
        self.assertIn("no such member", self.tool(1, "member", "add", "d", "--force=a"))
        with open(relay.paths["d"], "rb") as f:
            self.assertTrue(f.read().startswith(b"somebody's file"))
        os.unlink(relay.paths["d"])
        relay.change_config("share_disk = yes", "share_disk = no")
        relay.change_config('failure_domain = "shelf-d"', '')
        self.assertIn("lie on one disk", self.tool(1, "member", "add", "d", "--size", "64M"))
        relay.write_config()
        with open(relay.paths["a"], "rb") as a, open(relay.paths["d"], "wb") as d:
            d.write(a.read(65536))
        self.assertIn("a member of an Ironspool pool already", self.tool(1, "member", "add", "d"))
        self.assertEqual(len(relay.status()["members"]), 3)
        self.assertIn("in the pool", self.tool(0, "member", "add", "d", "--force=d", "--size", "64M"))
        relay.wait_ready()
        self.assertIn("already", self.tool(1, "member", "add", "d", "--force=d"))
        self.assertEqual(relay.stop(), 0)
        self.assertIn("daemon", self.tool(4, "member", "add", "d"))

    def test_a_dead_disk_is_replaced_under_its_own_name(self):
        relay = self.filled()
        self.lose("b")
        self.assertIn("member replace", self.tool(1, "member", "add", "b"))
        self.assertIn("not in the pool", self.tool(5, "member", "replace", "nobody", "b"))
        self.assertIn("put the new disk in first", self.tool(1, "member", "replace", "a"))
        self.assertIn("in the place of", self.tool(0, "member", "replace", "b"))
        relay.wait_ready()
        self.assertEqual(self.state("b"), "healthy")
        relay.kill("spool")
        relay.wait_ready()
        wait_for("the rebuild", self.whole)
        wait_for("the end of the old one", lambda: self.state("b.old") == "removed")
        self.lose("a")
        self.all_arrive()

    def test_a_working_disk_is_replaced_and_then_removed(self):
        relay = self.filled()
        self.configure("d")
        self.tool(0, "member", "replace", "a", "d")
        relay.wait_ready()
        self.assertIn(self.state("a"), ("evacuating", "removed"))
        wait_for("the end of the old one", lambda: self.state("a") == "removed")
        self.assertTrue(self.whole())
        self.lose("a")
        self.assertEqual(self.state("a"), "removed")
        self.all_arrive()

    def test_a_spare_waits_empty_and_takes_over_when_a_disk_is_lost(self):
        relay = self.filled(pool_keys='\n    spare_after = "1s"')
        self.configure("s", "  spare = yes")
        self.assertIn("as a spare", self.tool(0, "member", "add", "s"))
        relay.wait_ready()
        self.send(20)
        self.assertEqual(self.state("s"), "spare")
        self.assertEqual(self.member("s")["bytes_used"], 0)
        self.assertNotEqual(relay.status()["pool"]["state"], "degraded")
        self.lose("b")
        wait_for("the spare at work", lambda: self.state("s") == "healthy")
        self.assertIn('takes the place of \\"b\\"', self.tool(0, "events", "--json"))
        wait_for("the rebuild", self.whole)
        relay.kill("spool")
        relay.wait_ready()
        self.assertEqual(self.state("s"), "healthy")
        wait_for("all images", self.whole)
        self.lose("a")
        self.all_arrive()

    def test_a_member_leaves_when_it_is_empty_over_a_kill(self):
        relay = self.filled()
        self.assertIn("evacuate", self.tool(1, "member", "remove", "c"))
        self.assertIn("as soon as", self.tool(0, "member", "remove", "c", "--when-empty"))
        relay.kill("spool")
        relay.wait_ready()
        self.assertIn(self.state("c"), ("evacuating", "removed"))
        wait_for("an empty member", lambda: self.state("c") == "removed")
        self.tool(5, "member", "clear", "c")
        self.assertTrue(self.whole())
        self.all_arrive()

    def test_what_only_two_dead_disks_held_is_given_up_by_name(self):
        relay = self.filled(20, (500, 12_000))  # no CHUNKs: with them a message is deliverable whose MESSAGE is lost, and the reverse
        self.assertEqual(relay.stop(), 0)
        os.rename(relay.paths["c"], relay.paths["c"] + ".away")
        relay.start()
        ids, client = {}, relay.smtp()
        for i in range(12):  # on a and b only
            text = message("ab-%d" % i, size=9_000 + i)
            ids[relay.send("s@test.example", "u@test.example", text, client)] = "ab-%d" % i
            self.sent["ab-%d" % i] = body_of(text)
        client.quit()
        self.assertEqual(relay.stop(), 0)
        os.rename(relay.paths["c"] + ".away", relay.paths["c"])
        relay.start()
        wait_for("all images", self.whole)
        self.assertIn("it is here", self.tool(1, "member", "remove", "a", "--lost"))
        self.lose("a")  # one after the other: the segment table is on b and c when b dies
        wait_for("the rebuild to pause", lambda: relay.tool("rebuild", "pause")[0] == 0)  # what a had stays on b alone
        self.lose("b")
        wait_for("the index", lambda: relay.status()["queue"]["index_ready"])
        self.assertIn("--lost", self.tool(1, "member", "remove", "a"))
        self.tool(2, "member", "remove", "a", "--dry-run")
        self.tool(2, "member", "remove", "a", "--lost", "--when-empty")
        self.tool(5, "member", "remove", "nobody", "--lost")
        self.assertIn("with it 0 messages", self.tool(0, "member", "remove", "a", "--lost", "--dry-run"))
        self.assertEqual(self.state("a"), "absent")
        self.tool(0, "member", "remove", "a", "--lost")
        self.assertEqual(relay.status()["pool"]["messages_lost"], 0)  # b may have them
        relay.kill("spool")
        relay.wait_ready()
        self.assertEqual(self.state("a"), "removed")
        wait_for("the index", lambda: relay.status()["queue"]["index_ready"])
        loss = json.loads(self.tool(0, "member", "remove", "b", "--lost", "--dry-run", "--json"))
        self.assertGreaterEqual(loss["messages_lost"], len(ids))
        self.assertIn("%d messages are lost" % loss["messages_lost"], self.tool(0, "member", "remove", "b", "--lost"))
        self.tool(5, "member", "remove", "b", "--lost")
        wait_for("their names", lambda: relay.status()["pool"]["messages_lost"] == loss["messages_lost"])
        events = [json.loads(line) for line in self.tool(0, "events", "--count", "1000", "--json").splitlines()]
        named = {e["evidence"].split()[0] for e in events if e.get("event") == "record_lost"}
        self.assertEqual(len(named), loss["messages_lost"])
        self.assertLessEqual(set(ids), named)
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "release", "--all")[0] == 0)
        wait_for("all the others", lambda: len(relay.delivered("u@test.example")) >= len(self.sent) - len(named))
        got = {subject_of(m): body_of(m) for m in relay.delivered("u@test.example")}
        self.assertEqual(len(got), len(self.sent) - len(named))
        self.assertEqual(got, {s: b for s, b in self.sent.items() if s in got})
        self.assertFalse(set(ids.values()) & set(got))
        wait_for("what is left to be the lost ones", lambda: relay.queued() == len(named))
        for one in named:
            self.tool(0, "queue", "delete", one)
        wait_for("an empty queue", relay.drained)
        wait_for("room", lambda: relay.status()["pool"]["messages_below_copies"] == 0)

    def test_a_member_is_found_in_the_rack(self):
        relay = self.filled(1)
        out = self.tool(0, "member", "locate", "b")
        for word in ("path", "whole disk", "serial", "failure domain", "shelf-b", relay.paths["b"]):
            self.assertIn(word, out)
        found = json.loads(self.tool(0, "member", "locate", "b", "--json"))
        self.assertEqual((found["name"], found["here"]), ("b", True))
        self.tool(5, "member", "locate", "nobody")
        self.tool(2, "member", "locate")
        self.lose("b")
        self.assertIn("it is none of these", self.tool(0, "member", "locate", "b"))


if __name__ == "__main__":
    harness.main()
