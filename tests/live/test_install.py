#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is installed is whole: programs, unit, user, sample and manual agree with each other."""
import os, pwd, re, shutil, subprocess, tempfile, unittest

import harness

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.dirname(os.environ.get("IRONSPOOL_BIN", f"{TOP}/build/dev/bin"))


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="ironspool-install-")
        cls.root = cls.directory.name
        run("cmake", "--install", BUILD, "--prefix", "/usr", check=True, env={**os.environ, "DESTDIR": cls.root})

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def text(self, path):
        with open(self.root + path) as f:
            return f.read()

    def test_what_the_unit_starts_is_there(self):
        unit = self.text("/usr/lib/systemd/system/ironspool.service")
        programs = re.findall(r"^Exec\w+=(/usr\S+)", unit, re.M)
        self.assertTrue(programs)
        for program in programs:
            self.assertTrue(os.access(self.root + program, os.X_OK), program)
        self.assertIn("/etc/ironspool/ironspool.conf", unit)

    @unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "starts as root, with what the unit leaves of it")
    def test_what_the_unit_leaves_of_root_is_enough(self):
        unit = self.text("/usr/lib/systemd/system/ironspool.service")
        kept = re.search(r"(?m)^CapabilityBoundingSet=(.*)$", unit).group(1).lower().split()
        relay = harness.Ironspool()
        self.addCleanup(relay.close)
        relay.change_config('user = "root"', 'user = "nobody"')
        os.chown(relay.dir + "/mail", pwd.getpwnam("nobody").pw_uid, -1)
        relay.through = ["setpriv", "--bounding-set", ",".join(["-all"] + ["+" + c.removeprefix("cap_") for c in kept]), "--no-new-privs"]
        relay.start()
        relay.send("s@test.example", "r@test.example", harness.message("kept"))
        harness.wait_for("the mail", lambda: relay.delivered("r@test.example"))
        with open("/proc/%d/status" % relay.pid("relay")) as f:
            told = f.read()
        self.assertRegex(told, r"(?m)^CapBnd:\s0+$")
        self.assertRegex(told, r"(?m)^CapEff:\s0+$")
        self.assertEqual(relay.stop(), 0)

    @unittest.skipUnless(os.getuid() == 0, "the relay becomes another user")
    def test_a_maildir_that_the_relays_user_may_not_write_in_is_told(self):
        relay = harness.Ironspool()
        self.addCleanup(relay.close)
        relay.change_config('user = "root"', 'user = "nobody"')
        check = [os.path.join(harness.BIN, "ironspoold"), "-n", "-c", relay.config]
        told = run(*check)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn('warning: maildir:%s/mail: user "nobody" may not write in' % relay.dir, told.stderr)
        self.assertIn("chown nobody", told.stderr)
        os.rmdir(relay.dir + "/mail")
        self.assertIn("may not write in " + relay.dir, run(*check).stderr)  # where it would be made
        os.mkdir(relay.dir + "/mail")
        os.chown(relay.dir + "/mail", pwd.getpwnam("nobody").pw_uid, -1)
        self.assertNotIn("warning", run(*check).stderr)

    def test_the_relays_user_is_the_default_of_the_configuration(self):
        self.assertRegex(self.text("/usr/lib/sysusers.d/ironspool.conf"), r"(?m)^u ironspool ")

    def test_the_sample_is_a_configuration_and_its_missing_disks_are_named(self):
        sample = self.root + "/etc/ironspool/ironspool.conf"
        good = run(self.root + "/usr/sbin/ironspoold", "-n", "-c", sample)
        self.assertEqual(good.returncode, 0, good.stderr)
        made = run(self.root + "/usr/sbin/spooltool", "-c", sample, "pool", "create", "--dry-run")
        self.assertNotEqual(made.returncode, 0)
        self.assertIn("/dev/disk/by-id/ata-EXAMPLE1", made.stdout + made.stderr)

    def test_a_configuration_that_somebody_has_written_stays(self):
        with tempfile.TemporaryDirectory(prefix="ironspool-install-") as root:
            os.makedirs(f"{root}/etc/ironspool")
            with open(f"{root}/etc/ironspool/ironspool.conf", "w") as f:
                f.write("mine")
            run("cmake", "--install", BUILD, "--prefix", "/usr", check=True, env={**os.environ, "DESTDIR": root})
            with open(f"{root}/etc/ironspool/ironspool.conf") as f:
                self.assertEqual(f.read(), "mine")
            with open(f"{root}/etc/ironspool/ironspool.conf.sample") as f:
                self.assertEqual(f.read(), self.text("/etc/ironspool/ironspool.conf"))

    def test_every_document_that_is_named_is_there(self):
        self.assertIn("/usr/share/doc/ironspool/CONFIG.md", self.text("/etc/ironspool/ironspool.conf"))
        for name in ("CONFIG.md", "METRICS.md", "runbooks/README.md", "prometheus/ironspool.rules.yml", "LICENSE"):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/doc/ironspool/{name}"), name)
        for name in ("ironspoold", "spooltool", "ironspool-corrupt"):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/man/man8/{name}.8"), name)

    def test_the_scripts_of_the_package_can_be_read(self):
        for name in ("postinst", "prerm"):
            self.assertEqual(run("sh", "-n", f"{TOP}/packaging/debian/{name}").returncode, 0, name)
        completion = self.root + "/usr/share/bash-completion/completions/spooltool"
        self.assertEqual(run("bash", "-n", completion).returncode, 0)


if __name__ == "__main__":
    unittest.main()
