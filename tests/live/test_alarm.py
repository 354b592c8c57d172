#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is wrong reaches the outside without the mail queue: a hook, a webhook, a heartbeat; said again until it is over,
and mail never waits for any of them."""
import http.server
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
import unittest
import urllib.request

import harness
from harness import contents, message, wait_for

ALLOW = "fault_injection = yes\n"
HOOK = """#!/bin/sh
{
printf '%s|' "$#" "$@"
printf '%s|' "$IRONSPOOL_WHAT" "$IRONSPOOL_EVENT" "$IRONSPOOL_MEMBER" "$IRONSPOOL_SEVERITY" "$IRONSPOOL_HOST"
echo
} >> OUT
EXTRA
"""


class Web:
    """A server that keeps what it is told and answers what it is asked to."""

    def __init__(self, context=None, status=200):
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                web.posts.append((self.path, self.headers.get("Content-Type"), json.loads(body)))
                self.answer()

            def do_GET(self):
                web.gets.append(self.path)
                self.answer()

            def answer(self):
                self.send_response(web.status)
                self.send_header("Content-Length", "0")
                if 300 <= web.status < 400:
                    self.send_header("Location", "http://127.0.0.1:%d/elsewhere" % web.port)
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # a client that does not trust us hangs up

        self.posts, self.gets, self.status = [], [], status
        self.server = Server(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def told(self, event, what, member=None):
        return [p for _, _, p in self.posts
                if p["event"] == event and p["what"] == what and (member is None or p["member"] == member)]


class Case(unittest.TestCase):
    def relay(self, extra="", **changes):
        relay = harness.Ironspool(extra=ALLOW + extra, **changes)
        self.addCleanup(relay.close)
        return relay

    def hook(self, extra=""):
        """A hook that writes a line for each run; its path, and where it writes."""
        folder = harness.tempfile.mkdtemp(prefix="ironspool-hook-")
        self.addCleanup(harness.shutil.rmtree, folder, True)
        os.chmod(folder, 0o777)
        path, out = os.path.join(folder, "hook"), os.path.join(folder, "out")
        with open(path, "w", encoding="ascii") as f:
            f.write(HOOK.replace("OUT", out).replace("EXTRA", extra))
        os.chmod(path, 0o755)
        return path, out

    def web(self, *arguments, **options):
        web = Web(*arguments, **options)
        self.addCleanup(web.close)
        return web

    @staticmethod
    def runs(out):
        """One list of fields for each run of the hook."""
        return [line.split("|")[:-1] for line in contents(out).decode().splitlines()] if os.path.exists(out) else []

    @staticmethod
    def raised(relay):
        alarm = relay.status()["alarm"]
        return {(a["event"], a["member"]) for a in alarm["raised"]} if alarm["connected"] else None


class Channels(Case):
    def test_hook_and_webhook_tell_of_a_pulled_member_and_of_its_return(self):
        hook, out = self.hook()
        web = self.web()
        relay = self.relay('hook_program = "%s"\nwebhook = "http://127.0.0.1:%d/alarm?key=1"\n' % (hook, web.port), size="128M")
        relay.start()
        pool = relay.status()["pool"]["uuid"]
        relay.send("s@test.example", "u@test.example", message("before"))
        self.assertEqual(relay.tool("fault", "add", "vanish", "--member", "b", "--for", "10m")[0], 0)
        relay.send("s@test.example", "u@test.example", message("without"))
        told = wait_for("a hook about member b", lambda: [r for r in self.runs(out) if r[1] == "member_state" and "b" in r])[0]
        self.assertEqual(told, ["3", "member_state", pool, relay.paths["b"], "raised", "member_state", "b", "warning",
                                "mx.test.example"])
        told = wait_for("a hook about the pool", lambda: [r for r in self.runs(out) if r[1] == "pool_state"])[0]
        self.assertEqual(told[:4], ["2", "pool_state", pool, "raised"])
        post = wait_for("a webhook about member b", lambda: web.told("member_state", "raised", "b"))[0]
        self.assertEqual((post["pool"], post["member"], post["path"], post["host"], post["schema"]),
                         (pool, "b", relay.paths["b"], "mx.test.example", 1))
        self.assertEqual(post["runbook"], "docs/runbooks/event-member_state.md")
        self.assertEqual(web.posts[0][:2], ("/alarm?key=1", "application/json"))
        wait_for("it in status", lambda: ("member_state", "b") in (self.raised(relay) or ()))
        self.assertEqual(relay.tool("fault", "clear")[0], 0)
        wait_for("the hook's all-clear", lambda: [r for r in self.runs(out) if r[1] == "member_state_cleared" and "b" in r])
        wait_for("the webhook's all-clear", lambda: web.told("pool_state", "cleared"))
        wait_for("nothing raised", lambda: self.raised(relay) == set())
        wait_for("all mail", lambda: len(relay.delivered("u@test.example")) == 2)

    def test_it_is_said_again_until_it_is_over_also_by_the_next_process(self):
        web = self.web()
        relay = self.relay('webhook = "http://127.0.0.1:%d/"\nalarm_repeat = "1s"\n' % web.port)
        relay.start()
        self.assertEqual(relay.tool("fault", "add", "vanish", "--member", "b", "--for", "10m")[0], 0)
        relay.send("s@test.example", "u@test.example", message("x"))
        wait_for("three repetitions", lambda: len(web.told("member_state", "repeated", "b")) >= 3)
        counts = [p["count"] for p in web.told("member_state", "repeated", "b")]
        self.assertEqual(counts, sorted(set(counts)))
        relay.kill("alarm")  # the next one tells anew, and mail does not notice
        wait_for("the alarm of the next", lambda: len(web.told("member_state", "raised", "b")) == 2)
        self.assertTrue(relay.accepts())
        self.assertEqual(relay.tool("fault", "clear")[0], 0)
        wait_for("the all-clear", lambda: web.told("member_state", "cleared", "b"))
        whats = [p["what"] for _, _, p in web.posts if p["event"] == "member_state" and p["member"] == "b"]
        self.assertEqual(whats.count("cleared"), 1)
        self.assertEqual(whats[-1], "cleared")

    def test_https_is_spoken_to_a_proved_host_only(self):
        folder = harness.tempfile.mkdtemp(prefix="ironspool-ca-")
        self.addCleanup(harness.shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        pem = os.path.join(folder, "pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=alarm",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", os.path.join(folder, "key"), "-out", pem],
                       check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, os.path.join(folder, "key"))
        web = self.web(context)
        url = 'webhook = "https://127.0.0.1:%d/"\n' % web.port
        relay = self.relay(url, size="128M")
        relay.start()
        self.assertEqual(relay.tool("fault", "add", "vanish", "--member", "b", "--for", "10m")[0], 0)
        relay.send("s@test.example", "u@test.example", message("x"))
        wait_for("a refusal", lambda: "the webhook failed: TLS with 127.0.0.1" in relay.log())
        self.assertEqual(web.posts, [])
        relay.change_config(url, url + 'webhook_ca_file = "%s"\n' % pem)
        os.kill(relay.pid("supervisor"), signal.SIGHUP)
        wait_for("a webhook", lambda: web.told("member_state", "raised", "b"))

    def test_the_heart_beats_and_stops_with_the_spool(self):
        hook, out = self.hook()
        web = self.web()
        relay = self.relay('heartbeat_url = "http://127.0.0.1:%d/ping/42"\nheartbeat_interval = "1s"\nheartbeat_hook = yes\n'
                           'hook_program = "%s"\n' % (web.port, hook))
        relay.start()
        wait_for("three beats", lambda: len(web.gets) >= 3)
        self.assertEqual(set(web.gets), {"/ping/42"})
        wait_for("a beat of the hook", lambda: [r for r in self.runs(out) if r[1] == "heartbeat"])

        def beat():
            with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % relay.http_port) as page:
                text = page.read().decode()
            return float(text.split("\nironspool_alarm_heartbeat_timestamp_seconds ")[1].split("\n")[0])
        wait_for("a metric of it", beat)
        spool = relay.pid("spool")
        os.kill(spool, signal.SIGSTOP)
        try:
            wait_for("spool_silent", lambda: [r for r in self.runs(out) if r[1] == "spool_silent"])
            count = len(web.gets)
            wait_for("a repetition of nothing", lambda: "spool_silent" in relay.log())
            self.assertLessEqual(len(web.gets), count + 1)  # one may have been on its way
        finally:
            os.kill(spool, signal.SIGCONT)
        wait_for("its end", lambda: [r for r in self.runs(out) if r[1] == "spool_silent_cleared"])
        wait_for("the event", lambda: "spool_silent" in relay.tool("events")[1])
        wait_for("beats again", lambda: len(web.gets) > count + 2)

    def test_a_hook_that_hangs_and_a_webhook_that_fails_hold_up_nothing(self):
        hook, out = self.hook("sleep 1000 & sleep 1000")
        web = self.web(status=302)
        relay = self.relay('hook_program = "%s"\nhook_timeout = "1s"\nwebhook = "http://127.0.0.1:%d/"\n' % (hook, web.port))
        relay.start()
        self.assertEqual(relay.tool("fault", "add", "vanish", "--member", "b", "--for", "10m")[0], 0)
        client = relay.smtp()
        for i in range(50):
            relay.send("s@test.example", "u@test.example", message("m-%d" % i), client)
        client.quit()
        wait_for("all mail", lambda: len(relay.delivered("u@test.example")) == 50)
        wait_for("a hook that was killed", lambda: "the hook failed: it took longer than 1 s" in relay.log())
        wait_for("another try", lambda: len(self.runs(out)) >= 2)
        wait_for("a refused redirect", lambda: "answers 302: redirects are not followed" in relay.log())
        web.status = 500
        wait_for("a failure", lambda: "answers 500" in relay.log())
        web.status = 204
        wait_for("a success", lambda: relay.status()["alarm"]["webhook"]["sent"] >= 1)
        self.assertEqual(web.gets, [])
        self.assertTrue(relay.status()["alarm"]["connected"])
        self.assertEqual(relay.stop(), 0)


class Conditions(Case):
    def test_mail_that_is_due_and_does_not_leave_is_queue_delayed(self):
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(50)
            relay = self.relay('queue_delay_alarm = "2s"\n', transport="smtp:[127.0.0.1]:%d" % deaf.getsockname()[1])
            relay.start()
            relay.send("s@test.example", "u@test.example", message("slow"))
            wait_for("queue_delayed", lambda: ("queue_delayed", "") in (self.raised(relay) or ()))
            wait_for("its event", lambda: "queue_delayed" in relay.tool("events")[1])
            code, out, _ = relay.tool("check", "nagios")
            self.assertEqual((code, "event-queue_delayed.md" in out), (1, True), out)
            self.assertIn("event-queue_delayed.md", relay.tool("diagnose")[1])
        self.assertEqual(relay.tool("queue", "delete", "--all")[0], 0)
        wait_for("its end", lambda: self.raised(relay) == set())
        self.assertIn("alarm_cleared", relay.tool("events")[1])

    def test_messages_below_copies_are_redundancy_low(self):
        relay = self.relay("", transport="hold", copies=3, min_copies=1)
        relay.start()
        relay.send("s@test.example", "u@test.example", message("x", size=50_000))
        self.assertEqual(relay.tool("fault", "add", "vanish", "--member", "b", "--for", "10m")[0], 0)
        relay.send("s@test.example", "u@test.example", message("y", size=50_000))
        wait_for("redundancy_low", lambda: ("redundancy_low", "") in (self.raised(relay) or ()))
        wait_for("its event", lambda: "redundancy_low" in relay.tool("events")[1])
        self.assertEqual(relay.tool("fault", "clear")[0], 0)
        wait_for("its end", lambda: ("redundancy_low", "") not in (self.raised(relay) or {("redundancy_low", "")}))

    def test_a_pool_below_its_policy_is_mail_refused(self):
        web = self.web()
        relay = self.relay('webhook = "http://127.0.0.1:%d/"\n' % web.port, min_copies=2)
        for m in ("b", "c"):
            os.rename(relay.paths[m], relay.paths[m] + ".away")
        relay.start(wait=False)
        told = wait_for("mail_refused", lambda: web.told("mail_refused", "raised"))[0]
        self.assertEqual(told["severity"], "critical")
        for m in ("b", "c"):
            os.rename(relay.paths[m] + ".away", relay.paths[m])
        relay.wait_ready()
        wait_for("its end", lambda: web.told("mail_refused", "cleared"))


class Smart(Case):
    """smartctl is played by a script: test machines have no disk that is allowed to fail."""

    def smartctl(self, **what):
        folder = harness.tempfile.mkdtemp(prefix="ironspool-smart-")
        self.addCleanup(harness.shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        path, answer = os.path.join(folder, "smartctl"), os.path.join(folder, "answer")
        with open(path, "w", encoding="ascii") as f:
            f.write('#!/bin/sh\necho "$@" >> %s/asked\ncat %s\n' % (folder, answer))
        os.chmod(path, 0o755)
        return path, answer

    @staticmethod
    def answers(path, passed=True, pending=0):
        with open(path + ".new", "w", encoding="ascii") as f:
            json.dump({"smartctl": {"exit_status": 0 if passed else 8}, "model_name": "EXAMPLE", "serial_number": "S1",
                       "smart_status": {"passed": passed},
                       "ata_smart_attributes": {"table": [{"id": 197, "raw": {"value": pending}}]}}, f)
        os.rename(path + ".new", path)

    def test_a_failing_disk_is_shown_told_and_over_when_it_is_over(self):
        smartctl, answer = self.smartctl()
        web = self.web()
        self.answers(answer)
        relay = self.relay('smartctl = "%s"\nsmart_interval = "1s"\nwebhook = "http://127.0.0.1:%d/"\n' % (smartctl, web.port))
        relay.change_config('b.member"', 'b.member"  smart_device = "/dev/example0"  smart_type = "sat"')
        relay.start()

        def b():
            return next(m for m in relay.status()["members"] if m["name"] == "b")["smart"]
        wait_for("a verdict", lambda: b()["verdict"] == "passed")
        self.assertEqual((b()["model"], b()["serial"]), ("EXAMPLE", "S1"))
        asked = contents(os.path.join(os.path.dirname(smartctl), "asked")).decode().splitlines()
        self.assertEqual(set(asked), {"--json -a -n standby,0 /dev/example0 -d sat"})
        self.answers(answer, pending=7)
        wait_for("attention", lambda: b()["verdict"] == "attention" and b()["pending"] == 7)
        wait_for("its event", lambda: web.told("smart_attention", "event"))
        self.answers(answer, passed=False)
        wait_for("failing", lambda: b()["verdict"] == "failing")
        told = wait_for("an alarm", lambda: web.told("smart_failing", "raised"))[0]
        self.assertEqual(told["member"], "b")
        self.assertIn("smart_failing", relay.tool("events")[1])
        wait_for("a member that is emptied for it", lambda: "failing" in next(
            m for m in relay.status()["members"] if m["name"] == "b")["evidence"])
        self.assertIn('ironspool_smart_state{member="b",state="failing"} 1', relay.tool("metrics")[1])
        self.assertIn("SMART failing", relay.tool("status")[1] + relay.tool("members")[1])
        self.answers(answer)
        wait_for("its end", lambda: web.told("smart_failing", "cleared"))

    def test_noise_instead_of_an_answer_is_unknown_and_said_once(self):
        smartctl, answer = self.smartctl()
        with open(answer, "wb") as f:
            f.write(os.urandom(300_000))
        relay = self.relay('smartctl = "%s"\nsmart_interval = "1s"\n' % smartctl)
        relay.change_config('b.member"', 'b.member"  smart_device = "/dev/example0"')
        relay.start()
        asked = os.path.join(os.path.dirname(smartctl), "asked")
        wait_for("three questions", lambda: os.path.exists(asked) and len(contents(asked).splitlines()) >= 3)
        self.assertEqual(next(m for m in relay.status()["members"] if m["name"] == "b")["smart"]["verdict"], "unknown")
        self.assertEqual(relay.log().count('SMART of member "b"'), 1)

    def test_without_smartctl_nothing_is_wrong(self):
        relay = self.relay('smartctl = "/usr/sbin/there-is-no-such-program"\n')
        relay.start()
        self.assertEqual(relay.log().count("SMART is not read"), 1)
        self.assertEqual(relay.tool("status")[0], 0)


class Test(Case):
    def test_a_test_alarm_arrives_or_the_command_says_that_it_did_not(self):
        hook, out = self.hook()
        web = self.web()
        url = 'webhook = "http://127.0.0.1:%d/"\n' % web.port
        relay = self.relay('hook_program = "%s"\n%s' % (hook, url))
        relay.start()
        code, text, err = relay.tool("alarm", "test", "--json")
        self.assertEqual((code, json.loads(text)), (0, {"hook": "arrived", "webhook": "arrived"}), err)
        self.assertEqual(self.runs(out)[0][1], "alarm_test")
        self.assertEqual(web.told("alarm_test", "event")[0]["severity"], "info")
        relay.change_config(url, "")
        relay.change_config('hook_program = "%s"' % hook, 'hook_program = "/bin/false"')
        alarm = relay.pid("alarm")
        os.kill(relay.pid("supervisor"), signal.SIGHUP)
        wait_for("the next alarm process", lambda: relay.pid("alarm") not in (None, alarm))
        wait_for("its report", lambda: not relay.status()["alarm"]["webhook"]["configured"] and
                 relay.status()["alarm"]["hook"]["configured"])
        code, text, _ = relay.tool("alarm", "test")
        self.assertEqual(code, 1)
        self.assertIn("not yet", text)
        self.assertIn("the hook failed: it ended with code 1", relay.log())


class Configuration(Case):
    def test_what_cannot_work_is_refused_by_name(self):
        relay = self.relay()
        good = contents(relay.config).decode()
        plain = os.path.join(relay.dir, "plain")
        with open(plain, "w", encoding="ascii") as f:
            f.write("no program")
        os.chmod(plain, stat.S_IRUSR)
        for line, complaint in (('hook_program = "/no/such/hook"', "hook_program: /no/such/hook"),
                                ('hook_program = "%s"' % plain, "hook_program: "),
                                ('hook_program = "/usr"', "not a program"),
                                ('webhook = "ftp://x/"', "does not begin with http"),
                                ('webhook = "https://user:pw@x/"', "has a user in it"),
                                ('webhook = "http://x:99999/"', "has no host, or its port is none"),
                                ('webhook_ca_file = "/no/such/ca"', "webhook_ca_file"),
                                ('heartbeat_url = "http:///x"', "has no host"),
                                ('alarm_repeat = "0s"', "alarm_repeat"),
                                ('heartbeat_interval = "often"', "is not a time"),
                                ('smartctl = "smartctl"', "not an absolute path")):
            with open(relay.config, "w", encoding="ascii") as f:
                f.write(good + line + "\n")
            done = subprocess.run([os.path.join(harness.BIN, "ironspoold"), "-n", "-c", relay.config], capture_output=True,
                                  text=True, check=False)
            self.assertEqual(done.returncode, 1, line)
            self.assertIn(complaint, done.stderr, line)


if __name__ == "__main__":
    harness.main()
