#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The contract of spooltool: what is refused and why, exit codes, the status document, the queue commands."""
import io
import json
import os
import re
import signal
import subprocess
import tarfile
import unittest
import urllib.request

import harness
from harness import body_of, contents, message, subject_of, wait_for


class Create(unittest.TestCase):
    """A pool that is made, and everything that must not be made into one."""

    def setUp(self):
        self.relay = harness.Ironspool()
        self.addCleanup(self.relay.close)

    def create(self, *words):
        return self.relay.tool("pool", "create", "--size", "64M", *words)

    def test_a_pool_is_not_made_over_a_pool(self):
        before = contents(self.relay.paths["a"], 65536)
        code, _, err = self.create()
        self.assertEqual(code, 1)
        self.assertIn("--force=a", err)
        self.assertEqual(contents(self.relay.paths["a"], 65536), before)

    def test_force_names_the_member_that_may_go_and_no_other(self):
        code, _, err = self.create("--force=a")
        self.assertEqual(code, 1)
        self.assertNotIn("--force=a", err)
        self.assertIn("--force=b", err)
        self.assertEqual(self.create("--force=a", "--force=b", "--force=c")[0], 0)

    def test_a_file_system_is_not_destroyed(self):
        with open(self.relay.paths["b"], "r+b") as f:
            f.write(bytes(65536))
            f.seek(1024 + 56)
            f.write(b"\x53\xef")  # the magic of ext2
            f.seek(1024)
            f.write((1000).to_bytes(4, "little") + (4000).to_bytes(4, "little"))
        code, _, err = self.create("--force=a", "--force=c")
        self.assertEqual(code, 1)
        self.assertIn('member "b"', err)

    def test_a_dry_run_writes_nothing(self):
        before = contents(self.relay.paths["a"])
        code, out, _ = self.create("--force=a", "--force=b", "--force=c", "--dry-run")
        self.assertEqual(code, 0)
        self.assertIn("nothing was written", out)
        self.assertEqual(contents(self.relay.paths["a"]), before)

    def test_members_on_one_disk_are_refused_unless_they_are_named_apart(self):
        self.relay.change_config("share_disk = yes", "share_disk = no")
        for path in self.relay.paths.values():
            os.unlink(path)
        code, _, err = self.create()
        self.assertEqual(code, 0)  # each has a failure domain of its own, by name
        self.assertIn('warning: members "a" and "b" lie on one disk', err)
        for path in self.relay.paths.values():
            os.unlink(path)
        self.relay.change_config('failure_domain = "shelf-b"', '')
        code, _, err = self.create()
        self.assertEqual(code, 1)
        self.assertIn('members "a" and "b" lie on one disk', err)
        self.assertIn("--force=b", err)
        self.assertFalse(os.path.exists(self.relay.paths["a"]))

    def test_a_size_that_is_too_small_leaves_no_file_behind(self):
        for path in self.relay.paths.values():
            os.unlink(path)
        code, _, err = self.relay.tool("pool", "create", "--size", "3M")
        self.assertEqual(code, 1)
        self.assertIn("too small", err)
        self.assertEqual(os.listdir(self.relay.dir + "/disks"), [])

    def test_the_running_daemons_members_are_refused(self):
        self.relay.start()
        code, _, err = self.create("--force=a", "--force=b", "--force=c")
        self.assertEqual(code, 1)
        self.assertIn("stop it first", err)
        code, _, err = self.relay.tool("pool", "check")
        self.assertEqual(code, 1)
        self.assertIn("daemon runs", err)
        self.relay.send("s@test.example", "alive@test.example", message("alive"))
        wait_for("mail", lambda: self.relay.delivered("alive@test.example"))

    def test_wrong_usage_is_exit_code_two(self):
        for words in (["nonsense"], ["pool"], ["pool", "create", "--size", "much"], ["status", "--nonsense"],
                      ["queue", "hold"], ["queue", "show"], ["queue", "list", "--older-than", "soon"]):
            self.assertEqual(self.relay.tool(*words)[0], 2, words)

    def test_help_is_an_answer_and_no_mistake(self):
        for words in (["help"], ["--help"], ["status", "--help"], ["queue", "delete", "--help"]):
            done = subprocess.run([harness.BIN + "/spooltool", *words], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stdout[:6]), (0, "usage:"), words)

    def test_a_daemon_that_is_down_is_exit_code_four(self):
        for words in (["status"], ["members"], ["events"], ["diagnose"], ["queue", "list"], ["queue", "summary"], ["metrics"]):
            code, out, err = self.relay.tool(*words)
            self.assertEqual((code, out), (4, ""), words)
            self.assertIn("systemctl", err)
        self.assertEqual(self.relay.tool("check", "nagios")[0], 2)

    def test_a_configuration_that_is_wrong_names_file_and_line(self):
        with open(self.relay.config, "a", encoding="ascii") as f:
            f.write("message_sise_limit = 5\n")
        code, _, err = self.relay.tool("status")
        self.assertEqual(code, 1)
        self.assertRegex(err, r"ironspool\.conf:\d+: .*did you mean `message_size_limit`")


class Look(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.relay = harness.Ironspool(transport="hold")
        cls.addClassCleanup(cls.relay.close)
        cls.relay.start()

    def test_the_status_document_has_every_promised_member(self):
        s = self.relay.status()
        self.assertEqual(s["schema"], 1)
        for path, kind in {"version": str, "io_engine": str, "uptime_seconds": (int, float), "pool.uuid": str,
                           "pool.state": str, "pool.action": str, "pool.copies": int, "pool.min_copies": int, "pool.epoch": int,
                           "pool.bytes_total": int, "pool.bytes_used": int, "pool.bytes_live": int, "pool.bytes_headroom": int,
                           "pool.segments": int, "pool.messages": int, "pool.messages_below_copies": int,
                           "pool.messages_lost": int, "scrub.state": str, "scrub.progress": (int, float),
                           "scrub.bytes_verified": int, "scrub.errors_found": int, "scrub.errors_repaired": int,
                           "rebuild.state": str, "rebuild.bytes_remaining": int, "rebuild.messages_remaining": int,
                           "rebuild.bytes_per_second": (int, float), "queue.messages": int, "queue.recipients": int,
                           "queue.active": int, "queue.deferred": int, "queue.hold": int,
                           "queue.oldest_age_seconds": (int, float), "faults_injected": list}.items():
            value = s
            for key in path.split("."):
                value = value[key]
            self.assertIsInstance(value, kind, path)
        for key in ("last_completed", "eta_seconds"):
            self.assertIn(key, s["scrub"])
        self.assertIn("eta_seconds", s["rebuild"])
        self.assertEqual([m["name"] for m in s["members"]], list(harness.MEMBERS))
        for m in s["members"]:
            for key in ("uuid", "path", "serial", "failure_domain", "state", "since", "evidence", "bytes_total", "bytes_used",
                        "errors", "repaired_blocks", "latency_seconds"):
                self.assertIn(key, m)
            self.assertEqual(set(m["errors"]), {"read", "write", "flush", "checksum", "identity", "timeout"})
            self.assertGreaterEqual(set(m["latency_seconds"]), {"write_p50", "write_p99", "read_p50", "read_p99"})
            self.assertRegex(m["since"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")

    def test_a_healthy_pool_is_exit_code_zero(self):
        code, out, err = self.relay.tool("status")
        self.assertEqual(code, 0, out + err)
        self.assertIn("healthy", out)
        self.assertEqual(self.relay.tool("diagnose")[0], 0)
        code, out, _ = self.relay.tool("check", "nagios")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^IRONSPOOL OK - .* \| .*messages=\d+")

    def test_doctor_finds_nothing(self):
        code, out, err = self.relay.tool("doctor")
        self.assertEqual(code, 0, out + err)

    def test_events_tell_that_the_pool_was_mounted(self):
        code, out, _ = self.relay.tool("events", "--json")
        self.assertEqual(code, 0)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertIn("pool_mounted", [e["event"] for e in events])
        self.assertNotIn("index_rebuild", [e["event"] for e in events])  # it was empty because the pool is new

    def test_metrics_are_the_same_on_both_doors_and_all_listed(self):
        code, out, _ = self.relay.tool("metrics")
        self.assertEqual(code, 0)
        names = set(re.findall(r"^# TYPE (\w+)", out, re.M))
        self.assertGreaterEqual(names, {"ironspool_" + n for n in (
            "pool_state", "messages_below_copies", "member_state", "member_errors_total", "member_io_duration_seconds",
            "scrub_last_completed_timestamp_seconds", "scrub_errors_total", "rebuild_remaining_bytes", "queue_messages",
            "queue_oldest_message_age_seconds", "delivery_delay_seconds", "accepted_total", "accept_refused_total",
            "delivered_total")})
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % self.relay.http_port, timeout=30) as answer:
            page = answer.read().decode()
        self.assertEqual(set(re.findall(r"^# TYPE (\w+)", page, re.M)), names)
        listed = set(re.findall(r"ironspool_\w+", contents(harness.TOP + "/docs/METRICS.md").decode()))
        self.assertEqual(names - listed, set())

    def test_metrics_go_into_a_file_as_a_whole(self):
        code, _, err = self.relay.tool("metrics", "--textfile", self.relay.dir)
        self.assertEqual(code, 0, err)
        self.assertIn("ironspool_pool_state", contents(self.relay.dir + "/ironspool.prom").decode())

    def test_the_status_page_answers(self):
        with urllib.request.urlopen("http://127.0.0.1:%d/" % self.relay.http_port, timeout=30) as answer:
            self.assertEqual(answer.status, 200)
            self.assertIn("healthy", answer.read().decode())

    def test_output_that_can_not_be_written_is_a_failure(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([os.path.join(harness.BIN, "spooltool"), "-c", self.relay.config, "status"], stdout=full,
                                  stderr=subprocess.PIPE, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)


class Queue(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool(transport="hold")
        self.addCleanup(self.relay.close)
        self.relay.start()
        self.ids = {}
        for i in range(12):
            sender, to = "s%d@test.example" % (i % 3), "q%d@d%d.example" % (i, i % 2)
            self.ids[self.relay.send(sender, [to, "also@d%d.example" % (i % 2)], message("q%d" % i, size=2000 + i))] = (sender, to)
        wait_for("12 messages", lambda: self.relay.queued() == 12)
        self.assertEqual(self.relay.tool("queue", "hold", "--all")[0], 0)
        wait_for("12 messages on hold", lambda: self.relay.status()["queue"]["hold"] == 12)

    def listed(self, *words):
        code, out, err = self.relay.tool("queue", "list", "--json", *words)
        self.assertEqual(code, 0, err)
        return {m["queue_id"]: m for m in map(json.loads, out.splitlines())}

    def test_the_list_is_postqueues_with_more_fields(self):
        found = self.listed()
        self.assertEqual(set(found), set(self.ids))
        for qid, m in found.items():
            self.assertRegex(qid, r"^[0-9A-Za-z]{12,}$")
            self.assertEqual((m["queue_name"], m["sender"]), ("hold", self.ids[qid][0]))
            self.assertEqual({r["address"] for r in m["recipients"]}, {self.ids[qid][1], "also@" + self.ids[qid][1].split("@")[1]})
            self.assertIsInstance(m["arrival_time"], int)
            self.assertGreater(m["message_size"], 2000)

    def test_selectors_narrow(self):
        self.assertEqual(len(self.listed("--sender", "s0@test.example")), 4)
        self.assertEqual(len(self.listed("--domain", "d1.example")), 6)
        null = self.relay.send("", "null@d2.example", message("null"))
        for words in ("", "<>"):
            wait_for("the null sender's", lambda words=words: set(self.listed("--sender", words)) == {null})
        self.assertEqual(self.relay.tool("queue", "delete", null)[0], 0)
        wait_for("it gone", lambda: self.relay.queued() == 12)
        self.assertEqual(len(self.listed("--older-than", "1d")), 0)
        self.assertEqual(len(self.listed("--queue", "hold")), 12)
        self.assertEqual(len(self.listed("--queue", "deferred")), 0)
        some = list(self.ids)[:3]
        self.assertEqual(set(self.listed(*some)), set(some))

    def test_show_gives_the_message_back(self):
        qid = next(iter(self.ids))
        code, out, _ = self.relay.tool("queue", "show", qid)
        self.assertEqual(code, 0)
        self.assertEqual(json.loads(out)["queue_id"], qid)
        code, out, _ = self.relay.tool("queue", "show", qid, "--raw")
        self.assertEqual(code, 0)
        self.assertIn("Subject: q0", out)
        self.assertEqual(self.relay.tool("explain", qid)[0], 0)

    def test_what_is_not_there_is_exit_code_five(self):
        gone = next(iter(self.ids))[:13] + "ZZZZZZZZ"
        for words in (["queue", "show", gone], ["explain", gone], ["queue", "delete", gone]):
            self.assertEqual(self.relay.tool(*words)[0], 5, words)

    def test_the_summary_counts_by_domain(self):
        code, out, _ = self.relay.tool("queue", "summary", "--json")
        self.assertEqual(code, 0)
        s = json.loads(out)
        self.assertEqual((s["messages"], s["recipients"], s["hold"]), (12, 24, 12))
        self.assertEqual({d["domain"]: d["messages"] for d in s["domains"]}, {"d0.example": 6, "d1.example": 6})

    def test_a_dry_run_changes_nothing(self):
        code, out, _ = self.relay.tool("queue", "delete", "--all", "--dry-run")
        self.assertEqual(code, 0)
        self.assertIn("12", out)
        self.assertEqual(self.relay.queued(), 12)

    def test_delete_deletes_what_is_selected_and_no_more(self):
        some = sorted(self.ids)[:5]
        code, out, err = self.relay.tool("queue", "delete", *some)
        self.assertEqual(code, 0, out + err)
        wait_for("7 messages", lambda: self.relay.queued() == 7)
        self.assertEqual(set(self.listed()), set(self.ids) - set(some))
        self.assertEqual(self.relay.tool("queue", "delete", "--sender", "s1@test.example")[0], 0)
        self.assertEqual({m["sender"] for m in self.listed().values()} & {"s1@test.example"}, set())
        self.assertEqual(self.relay.tool("queue", "delete", "--all")[0], 0)
        wait_for("an empty queue", self.relay.drained)

    def test_deleted_mail_stays_deleted_after_a_restart(self):
        some = sorted(self.ids)[:5]
        self.assertEqual(self.relay.tool("queue", "delete", *some)[0], 0)
        self.assertEqual(self.relay.stop(), 0)
        self.relay.start()
        wait_for("7 messages", lambda: self.relay.queued() == 7)


class Export(unittest.TestCase):
    def test_what_is_exported_arrives_from_another_pool(self):
        with harness.Ironspool(transport="hold") as old, harness.Ironspool() as new:
            old.start()
            sent = {}
            for i, size in enumerate((1, 300, 5000, 70_000, 1_000_000)):
                text = message("x-%d" % i, size=size)
                old.send("s@test.example", ["one@x.example", "two@x.example"], text)
                sent["x-%d" % i] = body_of(text)
            archive = old.dir + "/export.tar.zst"
            code, _, err = old.tool("export", "--out", archive)
            self.assertEqual(code, 0, err)
            names = subprocess.run("zstd -dc %s | tar -tf -" % archive, shell=True, capture_output=True, text=True, timeout=60,
                                   check=True).stdout.split()
            self.assertEqual(len(names), 11)
            self.assertEqual(names[-1], "export.json")
            new.start()
            code, out, err = new.tool("import", "--from", archive)
            self.assertEqual(code, 0, out + err)
            wait_for("an empty queue", new.drained)
            for person in ("one@x.example", "two@x.example"):
                self.assertEqual({subject_of(m): body_of(m) for m in new.delivered(person)}, sent)
            last = names[-2].split(".")[0]
            code, _, err = old.tool("export", "--since", last, "--out", old.dir + "/nothing.tar.zst")
            self.assertEqual(code, 0, err)
            told = json.loads(new.tool("import", "--from", old.dir + "/nothing.tar.zst", "--json")[1])
            self.assertEqual(told, {"messages": 0, "hold": 0})

    def test_an_archive_that_is_cut_or_no_archive_is_said_to_be(self):
        with harness.Ironspool(transport="hold") as relay:
            relay.start()
            for i in range(5):
                relay.send("s@test.example", "cut@x.example", message("cut-%d" % i, size=50_000))
            archive = relay.dir + "/export.tar.zst"
            self.assertEqual(relay.tool("export", "--out", archive)[0], 0)
            whole = contents(archive)
            for bad in (whole[:len(whole) // 2], b"", b"no archive at all" * 100):
                with open(archive, "wb") as f:
                    f.write(bad)
                self.assertEqual(relay.tool("import", "--from", archive)[0], 1)

    def holding(self):
        relay = harness.Ironspool(transport="hold")
        self.addCleanup(relay.close)
        relay.start()
        for i in range(2):
            relay.send("s@test.example", "r@x.example", message("kept-%d" % i, size=5000))
        return relay

    def test_an_archive_takes_its_name_when_it_is_whole(self):
        relay = self.holding()
        os.mkdir(relay.dir + "/out")
        archive = relay.dir + "/out/export.tar.zst"
        with open(archive, "wb") as f:
            f.write(b"yesterday's")
        os.symlink(archive, relay.dir + "/out/link")
        code, _, err = relay.tool("export", "--out", relay.dir + "/out/link")
        self.assertEqual(code, 0, err)
        self.assertTrue(os.path.islink(relay.dir + "/out/link"))
        self.assertEqual(sorted(os.listdir(relay.dir + "/out")), ["export.tar.zst", "link"])
        tar = subprocess.run(["zstd", "-dc", archive], capture_output=True, timeout=60, check=True).stdout
        self.assertEqual(tar[-1024:], bytes(1024))
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            ages = {m.name: m.mtime for m in members}
        self.assertEqual(len(ages), 5)
        for line in relay.tool("queue", "list", "--json")[1].splitlines():
            m = json.loads(line)
            self.assertEqual(ages[m["queue_id"] + ".eml"], m["arrival_time"])

    def test_a_failed_export_leaves_what_was_there(self):
        relay = self.holding()
        archive, programs = relay.dir + "/out/export.tar.zst", relay.dir + "/programs"
        os.mkdir(relay.dir + "/out")
        os.mkdir(programs)
        with open(archive, "wb") as f:
            f.write(b"yesterday's")
        command = [harness.BIN + "/spooltool", "-c", relay.config, "export", "--out", archive]
        environment = {**os.environ, "PATH": programs + ":" + os.environ["PATH"]}
        with open(programs + "/zstd", "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nhead -c 100\nexit 1\n")
        os.chmod(programs + "/zstd", 0o755)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("was not kept", done.stderr)
        with open(programs + "/zstd", "w", encoding="ascii") as f:
            f.write("#!/bin/sh\necho $$ > %s/pid\nexec sleep 600\n" % programs)
        running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pid = wait_for("zstd", lambda: os.path.exists(programs + "/pid") and contents(programs + "/pid").strip())
        self.addCleanup(os.kill, int(pid), signal.SIGKILL)
        self.assertEqual(len(os.listdir(relay.dir + "/out")), 2)
        running.terminate()
        self.assertEqual(running.wait(60), -signal.SIGTERM)
        self.assertEqual(os.listdir(relay.dir + "/out"), ["export.tar.zst"])
        self.assertEqual(contents(archive), b"yesterday's")

    def test_an_export_goes_through_a_pipe(self):
        with harness.Ironspool() as new:
            new.start()
            old = self.holding()
            tool = harness.BIN + "/spooltool"
            subprocess.run("'%s' -c '%s' export --out - | '%s' -c '%s' import --from -" % (tool, old.config, tool, new.config),
                           shell=True, timeout=300, check=True)
            wait_for("the mail", lambda: len(new.delivered("r@x.example")) == 2)

    def test_what_was_on_hold_is_imported_on_hold_where_that_is_asked_for(self):
        old = self.holding()
        with harness.Ironspool() as new:
            new.start()
            archive = old.dir + "/export.tar.zst"
            self.assertEqual(old.tool("export", "--out", archive)[0], 0)
            code, out, err = new.tool("import", "--hold", "--from", archive)
            self.assertEqual(code, 0, out + err)
            self.assertIn("2 messages imported, 2 of them on hold", out)
            new.kill("relay")  # whoever comes next does not know how they came
            new.wait_ready()
            qid = new.send("s@test.example", "r@x.example", message("passing"))
            wait_for("what passes", lambda: "%s: removed" % qid in new.log())
            status = new.status()["queue"]
            self.assertEqual((status["hold"], status["messages"]), (2, 2))
            self.assertEqual(len(new.delivered("r@x.example")), 1)
            self.assertEqual(new.tool("queue", "release", "--all")[0], 0)
            wait_for("the mail", lambda: len(new.delivered("r@x.example")) == 3)

    def test_a_stranger_puts_nothing_on_hold(self):
        with harness.Ironspool() as relay:
            relay.change_config('mynetworks = { "127.0.0.0/8" }', 'mynetworks = { "192.0.2.0/24" }\nrelay_domains = { "x.example" }')
            relay.start()
            with relay.raw() as c:
                c.ask(b"EHLO client.test.example")
                self.assertEqual(c.ask(b"MAIL FROM:<s@test.example> XHOLD")[0], 554)
                self.assertEqual(c.ask(b"MAIL FROM:<s@test.example>")[0], 250)

    def test_an_import_comes_from_where_the_relay_trusts_it(self):
        old = self.holding()
        archive = old.dir + "/export.tar.zst"
        self.assertEqual(old.tool("export", "--out", archive)[0], 0)
        with harness.Ironspool() as new:
            new.change_config('listen "test"', 'listen "far" { address = "192.0.2.1"  port = 25 }\nlisten "test"')
            with open(new.config, encoding="ascii") as f:
                far = f.read()
            new.write_config()  # it listens on one address only; spooltool is told of both
            new.change_config('"127.0.0.0/8"', '"192.0.2.0/24"')
            new.start()
            with open(new.dir + "/far.conf", "w", encoding="ascii") as f:
                f.write(far)
            done = subprocess.run([harness.BIN + "/spooltool", "-c", new.dir + "/far.conf", "import", "--from", archive],
                                  capture_output=True, text=True, timeout=300, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"r@x\.example: 554 5\.7\.1 .*Relay access denied; .*mynetworks \+= \{ \"127\.0\.0\.1/32\" \}")


class Deferred(unittest.TestCase):
    def test_hold_release_and_retry(self):
        nowhere = harness.free_port()
        with harness.Ironspool(transport="smtp:[127.0.0.1]:%d" % nowhere,
                               extra='smtp_connect_timeout = "1s"\n') as relay:
            relay.start()
            qid = relay.send("s@test.example", "later@test.example", message("later"))
            wait_for("a deferred message", lambda: relay.status()["queue"]["deferred"] == 1)
            self.assertEqual(relay.tool("queue", "hold", qid)[0], 0)
            wait_for("it on hold", lambda: relay.status()["queue"]["hold"] == 1)
            self.assertIn("held", relay.tool("explain", qid)[1])
            self.assertEqual(relay.stop(), 0)
            relay.write_config(transport="maildir:%s/mail" % relay.dir)
            relay.start()
            wait_for("it on hold after a restart", lambda: relay.status()["queue"]["hold"] == 1)
            self.assertEqual(relay.delivered("later@test.example"), [])
            wait_for("a complete index", lambda: relay.tool("queue", "release", qid)[0] == 0)
            self.assertEqual(relay.tool("queue", "retry", "--all")[0], 0)
            wait_for("the mail", lambda: relay.delivered("later@test.example"))
            wait_for("an empty queue", relay.drained)


class Follow(unittest.TestCase):
    def test_events_are_followed_over_restarts_and_told_once(self):
        with harness.Ironspool() as relay:
            relay.start()
            told = os.path.join(relay.dir, "told")
            with open(told, "wb") as out:
                follower = subprocess.Popen([os.path.join(harness.BIN, "spooltool"), "-c", relay.config, "events", "--follow",
                                             "--json"], stdout=out)
            self.addCleanup(follower.wait)
            self.addCleanup(follower.kill)

            def mounts():
                return [line for line in contents(told).splitlines() if json.loads(line)["event"] == "pool_mounted"]
            wait_for("the first mount", lambda: len(mounts()) == 1)
            relay.kill("spool")
            wait_for("the second", lambda: len(mounts()) == 2)
            self.assertEqual(relay.stop(), 0)
            relay.start()
            wait_for("the third", lambda: len(mounts()) == 3)
            self.assertEqual(len(set(mounts())), 3)
            self.assertIsNone(follower.poll())


if __name__ == "__main__":
    harness.main()
