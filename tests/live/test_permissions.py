#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""spooltool in the hands of a user who is not root: what that user may not do is told as that, with exit code 3."""
import os
import pwd
import shutil
import signal
import subprocess
import unittest

import harness


@unittest.skipUnless(os.getuid() == 0, "becomes another user")
class Permissions(unittest.TestCase):
    def setUp(self):
        self.relay = harness.Ironspool()
        self.addCleanup(self.relay.close)
        self.program = shutil.copy(harness.BIN + "/spooltool", self.relay.dir)  # the build may lie where only root comes
        os.chmod(self.program, 0o755)
        os.chmod(self.relay.config, 0o644)
        try:
            self.as_nobody("--version")
        except PermissionError:
            self.skipTest("%s is for root alone" % self.relay.dir)

    def as_nobody(self, *words, groups=()):
        nobody = pwd.getpwnam("nobody")
        done = subprocess.run([self.program, "-c", self.relay.config, *words], capture_output=True, text=True, timeout=300, check=False,
                              user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=groups)
        return done.returncode, done.stdout, done.stderr

    def test_a_member_that_this_user_may_not_open_is_no_failure(self):
        for words in (("pool", "create", "--size", "64M"), ("pool", "create", "--dry-run"), ("pool", "check")):
            code, out, err = self.as_nobody(*words)
            self.assertEqual((code, out), (3, ""), err)
            self.assertIn("may not be opened by this user; run as root", err)
            self.assertNotIn("check the paths", err)
        self.assertEqual(self.as_nobody("doctor")[0], 3)
        os.chmod(self.relay.paths["a"], 0o666)  # one of three: no report of what the others may hold
        code, out, err = self.as_nobody("pool", "check")
        self.assertEqual((code, out), (3, ""), err)
        self.assertEqual(self.relay.tool("pool", "check")[0], 0)

    def test_a_disk_where_this_user_may_make_no_file_is_no_failure(self):
        for path in self.relay.paths.values():
            os.unlink(path)
        code, _, err = self.as_nobody("pool", "create", "--size", "64M")
        self.assertEqual(code, 3, err)

    def test_a_new_member_that_this_user_may_not_open_is_no_failure(self):
        self.relay.start()
        new = self.relay.dir + "/disks/d.member"
        self.relay.paths["d"] = new
        self.relay.write_config()
        with open(new, "wb"):
            os.chmod(new, 0o600)
        self.relay.process.send_signal(signal.SIGHUP)
        harness.wait_for("the new configuration", lambda: self.relay.tool("member", "add", "d", "--dry-run", "--force=d")[0] == 0)
        os.chmod(self.relay.dir + "/control.sock", 0o666)
        code, _, err = self.as_nobody("member", "add", "d")
        self.assertEqual(code, 3, err)
        self.assertIn("may not be opened by this user; run as root", err)

    def test_a_configuration_that_this_user_may_not_read_is_no_failure(self):
        os.chmod(self.relay.config, 0o600)
        for words in (("status",), ("pool", "create"), ("pool", "check"), ("queue", "list"), ("doctor",), ("member", "add", "d"),
                      ("import",), ("demo",), ("check", "nagios")):
            code, _, err = self.as_nobody(*words)
            self.assertEqual(code, 3, words)
            self.assertIn(self.relay.config + ": Permission denied; run as root", err)

    def test_who_only_asks_need_not_read_what_the_daemon_reads(self):
        secret = self.relay.dir + "/secret"
        os.mkdir(secret)
        for name in ("cert.pem", "key.pem", "ca.pem", "routes", "aliases", "hook"):
            with open(secret + "/" + name, "w", encoding="ascii"):
                pass
        os.chmod(secret + "/hook", 0o700)
        keys = ('smtpd_tls_cert_file = "%s/cert.pem"\nsmtpd_tls_key_file = "%s/key.pem"\nsmtp_tls_ca_file = "%s/ca.pem"\n'
                'webhook_ca_file = "%s/ca.pem"\ntransport_maps = { "%s/routes" }\nvirtual_alias_maps = { "%s/aliases" }\n'
                'hook_program = "%s/hook"\n')
        self.relay.write_config(extra=keys.replace("%s", secret))
        os.chmod(secret, 0o700)
        self.assertEqual(self.as_nobody("status")[0], 4)  # nobody answers
        os.unlink(secret + "/key.pem")
        code, _, err = self.relay.tool("status")  # by whom it would be seen, a file that is missing is told
        self.assertEqual(code, 1)
        self.assertRegex(err, r":\d+: smtpd_tls_key_file: .*key.pem: No such file")
        os.chmod(secret, 0o755)
        code, _, err = self.as_nobody("status")
        self.assertEqual(code, 1)
        self.assertRegex(err, r":\d+: smtpd_tls_key_file: .*key.pem: No such file")

    def test_the_daemon_and_its_check_look_whether_they_can_read(self):
        key = self.relay.dir + "/key.pem"
        with open(key, "w", encoding="ascii"):
            os.chmod(key, 0o600)
        self.relay.write_config(extra='smtpd_tls_cert_file = "%s"\nsmtpd_tls_key_file = "%s"\n' % (self.relay.config, key))
        self.program = shutil.copy(harness.BIN + "/ironspoold", self.relay.dir)
        code, _, err = self.as_nobody("-n")
        self.assertEqual(code, 1)
        self.assertRegex(err, r":\d+: smtpd_tls_key_file: .*key.pem: Permission denied")


if __name__ == "__main__":
    harness.main()
