#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What people and programs outside rely on, each by its exact form: exit codes, keys of the documents, metrics, log lines,
replies. Words that change here change for users."""
import json
import os
import re
import shutil
import signal
import smtplib
import subprocess
import unittest
import urllib.request

import harness
from harness import message, wait_for

NUMBER, TEXT = (int, float), str
STATUS = {
    "": {"schema": int, "version": TEXT, "io_engine": TEXT, "uptime_seconds": NUMBER, "pool": dict, "members": list, "scrub": dict,
         "rebuild": dict, "queue": dict, "faults_injected": list},
    "pool": {"uuid": TEXT, "state": TEXT, "action": TEXT, "copies": int, "min_copies": int, "epoch": int, "bytes_total": int,
             "bytes_used": int, "bytes_live": int, "bytes_headroom": int, "segments": int, "messages": int,
             "messages_below_copies": int, "messages_lost": int},
    "scrub": {"state": TEXT, "progress": NUMBER, "last_completed": (str, type(None)), "bytes_verified": int,
              "errors_found": int, "errors_repaired": int, "eta_seconds": (int, float, type(None))},
    "rebuild": {"state": TEXT, "bytes_remaining": int, "messages_remaining": int, "bytes_per_second": NUMBER,
                "eta_seconds": (int, float, type(None))},
    "queue": {"messages": int, "recipients": int, "active": int, "deferred": int, "hold": int, "oldest_age_seconds": NUMBER},
}
MEMBER = {"name": TEXT, "uuid": TEXT, "path": TEXT, "serial": TEXT, "failure_domain": TEXT, "state": TEXT, "since": TEXT,
          "evidence": TEXT, "bytes_total": int, "bytes_used": int, "errors": dict, "repaired_blocks": int,
          "latency_seconds": dict}
ERRORS = {"read", "write", "flush", "checksum", "identity", "timeout"}
LATENCIES = {"write_p50", "write_p99", "read_p50", "read_p99"}
METRICS = """pool_state messages_below_copies member_state member_errors_total member_io_duration_seconds
    scrub_last_completed_timestamp_seconds scrub_errors_total rebuild_remaining_bytes queue_messages
    queue_oldest_message_age_seconds delivery_delay_seconds accepted_total accept_refused_total delivered_total""".split()
POSTQUEUE = {"queue_name": str, "queue_id": str, "arrival_time": int, "message_size": int, "forced_expire": bool, "sender": str,
             "recipients": list}


class Contract(unittest.TestCase):
    def relay(self, **changes):
        relay = harness.Ironspool(**changes)
        self.addCleanup(relay.close)
        return relay

    def keys(self, found, wanted, where):
        for key, kind in wanted.items():
            self.assertIn(key, found, where)
            self.assertIsInstance(found[key], kind, "%s.%s is %r" % (where, key, found[key]))
            self.assertFalse(isinstance(found[key], bool) and kind is not bool, "%s.%s" % (where, key))

    def test_the_status_document_has_every_key_with_its_type(self):
        status = self.relay().start().status()
        self.assertEqual(status["schema"], 1)
        for where, wanted in STATUS.items():
            self.keys(status[where] if where else status, wanted, where)
        self.assertEqual(sorted(m["name"] for m in status["members"]), ["a", "b", "c"])
        for m in status["members"]:
            self.keys(m, MEMBER, "member " + m["name"])
            self.assertEqual(set(m["errors"]) & ERRORS, ERRORS)
            self.assertEqual(set(m["latency_seconds"]) & LATENCIES, LATENCIES)
            self.assertRegex(m["since"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        self.assertEqual(status["pool"]["state"], "healthy")

    def test_every_metric_is_there_from_the_first_scrape(self):
        relay = self.relay().start()
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % relay.http_port, timeout=30) as answer:
            page = answer.read().decode()
        told = relay.tool("metrics")[1]
        for name in METRICS:
            for text in (page, told):
                self.assertRegex(text, r"(?m)^ironspool_%s(_bucket|_count)?(\{[^}]*\})? [0-9.e+-]+$" % name)

    def test_exit_codes(self):
        relay = self.relay(transport="hold")
        self.assertEqual(relay.tool("status")[0], 4)
        relay.start()
        self.assertEqual(relay.tool("status")[0], 0)
        self.assertEqual(relay.tool("frobnicate")[0], 2)
        self.assertEqual(relay.tool("queue", "show")[0], 2)
        self.assertEqual(relay.tool("queue", "show", "AAAAAAAAAAAAAAAAAAAAA")[0], 5)
        self.assertEqual(relay.tool("fault", "add", "slow", "--member", "a")[0], 3)
        self.assertEqual(relay.tool("import", "--from", "/nonexistent")[0], 1)
        self.assertEqual(relay.tool("check", "nagios")[0], 0)
        self.assertRegex(relay.tool("check", "nagios")[1], r"^IRONSPOOL OK.*\|.*=")
        for i in range(30):
            relay.send("s@test.example", "r@test.example", message("lost-%d" % i, size=20_000))
        self.assertEqual(relay.stop(), 0)
        away = relay.paths["a"] + ".away"
        os.rename(relay.paths["a"], away)
        self.assertEqual(relay.tool("pool", "check")[0], 11)
        relay.start()
        self.assertEqual(relay.tool("status")[0], 11)
        self.assertIn(relay.tool("check", "nagios")[0], (1, 2))
        self.assertEqual(relay.stop(), 0)
        os.rename(away, relay.paths["a"])  # while it is away, what it may hold is not lost
        for name in "abc":
            member = harness.contents(relay.paths[name])
            with open(relay.paths[name], "wb") as f:
                f.write(member.replace(b"Subject: lost-", b"Subject: LOST-"))
        self.assertEqual(relay.tool("pool", "check")[0], 12)

    def test_faults_are_attention(self):
        relay = self.relay(extra="fault_injection = yes\n").start()
        self.assertEqual(relay.tool("fault", "add", "slow", "--member", "a", "--factor", "2")[0], 0)
        self.assertEqual(relay.tool("status")[0], 10)
        self.assertEqual(relay.status()["faults_injected"][0]["kind"], "slow")
        self.assertEqual(relay.tool("fault", "clear")[0], 0)
        self.assertEqual(relay.tool("status")[0], 0)

    def test_a_warning_names_its_reason(self):
        relay = self.relay(extra="fault_injection = yes\n").start()
        self.assertEqual(relay.tool("fault", "add", "slow", "--member", "a", "--factor", "2")[0], 0)
        code, out, _ = relay.tool("check", "nagios")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"^IRONSPOOL WARNING - pool is healthy, .*faults are injected .* \| messages=")
        self.assertEqual(relay.tool("diagnose")[0], 10)
        self.assertIn("faults are injected", relay.tool("diagnose")[1])

    def test_queue_list_is_postqueues(self):
        relay = self.relay(transport="hold").start()
        qid = relay.send("s@test.example", ["r@test.example", "t@test.example"], message("listed"))
        self.assertRegex(qid, r"^[A-Za-z0-9]{12,}$")
        line = json.loads(relay.tool("queue", "list", "--json")[1])
        self.keys(line, POSTQUEUE, "queue list")
        self.assertEqual((line["queue_id"], line["queue_name"], line["sender"]), (qid, "hold", "s@test.example"))
        self.assertEqual([r["address"] for r in line["recipients"]], ["r@test.example", "t@test.example"])

    def test_requeue_tries_again_with_the_routes_of_now(self):
        relay = self.relay(transport="hold").start()
        qid = relay.send("s@test.example", "r@test.example", message("requeued"))
        self.assertEqual(relay.stop(), 0)
        relay.write_config(transport="maildir:%s/mail" % relay.dir)
        relay.start()
        wait_for("a complete index", lambda: relay.tool("queue", "requeue", qid)[0] == 0)
        wait_for("the mail", lambda: relay.delivered("r@test.example"))
        wait_for("it gone", lambda: relay.tool("queue", "requeue", qid)[0] == 5)

    def test_log_lines_are_what_pflogsumm_reads(self):
        relay = self.relay().start()
        qid = relay.send("s@test.example", "r@test.example", message("logged"))
        wait_for("an empty queue", relay.drained)
        log = relay.log()
        for line in (r"ironspool/smtpd\[\d+\]: connect from \S+\[127\.0\.0\.1\]",
                     r"ironspool/smtpd\[\d+\]: %s: client=\S+\[127\.0\.0\.1\]" % qid,
                     r"ironspool/cleanup\[\d+\]: %s: message-id=" % qid,
                     r"ironspool/qmgr\[\d+\]: %s: from=<s@test\.example>, size=\d+, nrcpt=1 \(queue active\)" % qid,
                     r"ironspool/maildir\[\d+\]: %s: to=<r@test\.example>, relay=\S+, delay=[\d.]+, "
                     r"delays=[\d.]+/[\d.]+/[\d.]+/[\d.]+, dsn=2\.0\.0, status=sent \(" % qid,
                     r"ironspool/qmgr\[\d+\]: %s: removed" % qid):
            self.assertRegex(log, r"(?m)^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ " + line)

    @unittest.skipUnless(shutil.which("pflogsumm"), "pflogsumm is not installed")
    def test_pflogsumm_counts_what_happened(self):
        relay = self.relay()
        with open(relay.dir + "/routes", "w", encoding="ascii") as f:
            f.write("gone.example error:5.1.1 no such user\nlater.example error:4.7.1 not now\n")
        relay.write_config(extra='transport_maps = { "%s/routes" }\n' % relay.dir)
        relay.change_config('mynetworks = { "127.0.0.0/8" }',
                            'mynetworks = { "192.0.2.0/24" }\nrelay_domains = { "test.example", "gone.example", "later.example" }')
        relay.start()
        for to in ("r@test.example", "u@test.example", "x@gone.example", "y@later.example"):
            relay.send("s@test.example", to, message(to))
        with self.assertRaises(smtplib.SMTPResponseException):
            relay.send("s@test.example", "r@theirs.example", message("refused"))
        wait_for("the bounce and a deferral", lambda: relay.delivered("s@test.example") and "status=deferred" in relay.log())
        done = subprocess.run(["pflogsumm", "--syslog-name=ironspool", relay.dir + "/log"], capture_output=True, text=True,
                              timeout=60, check=True)
        for what, least in (("received", 4), ("delivered", 3), ("bounced", 1), ("rejected", 1), ("deferred", 1)):
            count = re.search(r"(?m)^ +(\d+) +%s" % what, done.stdout)
            self.assertTrue(count and int(count.group(1)) >= least, "%s\n%s" % (what, done.stdout[:900]))

    def test_replies(self):
        relay = self.relay(extra="message_size_limit = 10K\n")
        relay.change_config('mynetworks = { "127.0.0.0/8" }', 'mynetworks = { "192.0.2.0/24" }\nrelay_domains = { "ours.example" }')
        relay.start()
        with relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            self.assertEqual(c.ask(b"MAIL FROM:<s@test.example> SIZE=999999")[0:2], (552, "5.3.4 Message size exceeds fixed limit"))
            harness.wait_for("it to be counted", lambda: 'accept_refused_total{reason="too_large"} 1\n' in relay.tool("metrics")[1])
            c.ask(b"MAIL FROM:<s@test.example>")
            self.assertRegex(" ".join(map(str, c.ask(b"RCPT TO:<r@theirs.example>"))), r"^554 5\.7\.1 .*Relay access denied")
            self.assertEqual(c.ask(b"RCPT TO:<r@ours.example>")[0], 250)
            self.assertEqual(c.ask(b"DATA")[0], 354)
            c.say(b"Subject: x\r\n\r\nbody\r\n.\r\n")
            self.assertRegex(" ".join(map(str, c.reply())), r"^250 2\.0\.0 Ok: queued as [A-Za-z0-9]{12,}$")
            c.ask(b"MAIL FROM:<s@test.example>")
            c.ask(b"RCPT TO:<r@ours.example>")
            c.ask(b"DATA")
            c.say(b"Subject: x\r\n\r\nbare\nline feed\r\n.\r\n")
            self.assertRegex(" ".join(map(str, c.reply())), r"^521 5\.5\.2 ")
            self.assertTrue(c.closed())
        with relay.raw() as c:
            c.ask(b"EHLO client.test.example")
            relay.process.send_signal(signal.SIGTERM)
            self.assertRegex(" ".join(map(str, c.reply())), r"^421 4\.3\.2 ")
            self.assertTrue(c.closed())
        self.assertEqual(relay.process.wait(harness.PATIENCE), 0)

    def test_a_pool_below_policy_says_451_4_3_0(self):
        relay = self.relay(min_copies=2)
        for name in "ab":
            os.rename(relay.paths[name], relay.paths[name] + ".away")
        relay.start(wait=False)

        def refused():
            if not relay.greets():
                return None
            with relay.raw() as c:
                commands = (b"EHLO client.test.example", b"MAIL FROM:<s@test.example>", b"RCPT TO:<r@test.example>", b"DATA")
                return next((answer for answer in map(c.ask, commands) if answer[0] == 451), None)
        self.assertRegex(wait_for("a refusal", refused)[1], r"^4\.3\.0 ")

    def test_a_mistake_in_the_file_is_named_and_changes_nothing(self):
        relay = self.relay()
        text = harness.contents(relay.config)
        with open(relay.config, "wb") as f:
            f.write(text.replace(b"mynetworks", b"mynetwork"))
        done = subprocess.run([harness.BIN + "/ironspoold", "-n", "-c", relay.config], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        line = text.split(b"\n").index(b'mynetworks = { "127.0.0.0/8" }') + 1
        self.assertIn("%s:%d: unknown key `mynetwork`; did you mean `mynetworks`?" % (relay.config, line), done.stderr)
        with open(relay.config, "wb") as f:
            f.write(text)
        relay.start()
        pids = relay.pid("relay"), relay.pid("spool")
        with open(relay.config, "ab") as f:
            f.write(b"frobnicate = 1\n")
        relay.process.send_signal(signal.SIGHUP)
        wait_for("it said", lambda: re.search(r"reload refused, the old configuration stays: .*:\d+: unknown key `frobnicate`",
                                              relay.log()))
        self.assertEqual((relay.pid("relay"), relay.pid("spool")), pids)
        relay.send("s@test.example", "r@test.example", message("still"))

    def test_since_takes_what_an_export_printed(self):
        relay = self.relay(transport="hold").start()
        for i in range(3):
            relay.send("s@test.example", "r@test.example", message("export-%d" % i))
        code, out, err = relay.tool("export", "--out", relay.dir + "/one", "--json")
        self.assertEqual(code, 0, err)
        cursor = json.loads(out)["cursor"]
        self.assertTrue(cursor)
        code, out, err = relay.tool("export", "--since", cursor, "--out", relay.dir + "/two", "--json")
        self.assertEqual(code, 0, err)
        self.assertGreaterEqual(int(json.loads(out)["cursor"]), int(cursor))
        self.assertIn("next time: --since ", relay.tool("export", "--out", relay.dir + "/two")[1])
        with open(relay.dir + "/three", "wb") as archive:  # stdout is the archive: the words go elsewhere
            done = subprocess.run([harness.BIN + "/spooltool", "-c", relay.config, "export", "--json"], stdout=archive,
                                  stderr=subprocess.PIPE, text=True, timeout=300, check=True)
        self.assertIn('"cursor"', done.stderr)
        subprocess.run(["zstd", "-qt", relay.dir + "/three"], timeout=60, check=True)
        self.assertEqual(relay.tool("export", "--since", "yesterday", "--out", relay.dir + "/three")[0], 2)


if __name__ == "__main__":
    harness.main()
