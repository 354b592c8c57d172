/* SPDX-License-Identifier: Apache-2.0 */
/* What the children give up: identity, capabilities, the file system, system calls. The only door to libseccomp;
 * Landlock by bare system calls, for Debian 12's libc has no wrapper.
 *
 *  SBX-1  nothing here is undone later; every step that the kernel has but refuses is an error, not a shrug.
 *  SBX-2  what the kernel does not have is said in the report.
 * The filters deny what is dangerous and never needed, instead of listing what is allowed: OpenSSL, libunbound and libc
 * change what they call from one security update to the next, and a relay that dies of an update is no safer. */
#include "sandbox.h"
#include "maildirs.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <log.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1 /* its leak check forks and traces, its reports read /proc */
#else
#define SANITIZED 0
#endif

/* --- who --- */

enum err identity_find(const struct config *c, struct identity *identity_out, char text[256])
{
    struct identity id = {0};
    if (geteuid() != 0) {
        *identity_out = id;
        return ERR_OK;
    }
    const struct passwd *p = getpwnam(c->user);
    if (!p && strcmp(c->user, "ironspool") == 0) {
        log_line("ironspoold", "warning: there is no user \"ironspool\"; the relay runs as \"nobody\"");
        p = getpwnam("nobody");
    }
    if (!p) {
        snprintf(text, 256, "%.128s: user: there is no user \"%s\"", c->file, c->user);
        return ERR_CONFIG;
    }
    id.drops = true;
    id.uid = p->pw_uid;
    id.gid = p->pw_gid;
    snprintf(id.name, sizeof id.name, "%s", p->pw_name);
    if (c->group[0]) {
        const struct group *g = getgrnam(c->group);
        if (!g) {
            snprintf(text, 256, "%.128s: group: there is no group \"%s\"", c->file, c->group);
            return ERR_CONFIG;
        }
        id.gid = g->gr_gid;
    }
    *identity_out = id;
    return ERR_OK;
}

static enum err drop_identity(const struct identity *id)
{
    if (!id->drops)
        return ERR_OK;
    for (int cap = 0, has; (has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
        if (has && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            return ERR_DENIED; /* without CAP_SETPCAP */
    if (setgroups(1, &id->gid) != 0 || setresgid(id->gid, id->gid, id->gid) != 0 ||
        setresuid(id->uid, id->uid, id->uid) != 0)
        return ERR_DENIED;
    return ERR_OK;
}

static enum err drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &head, none) == 0 ? ERR_OK : ERR_DENIED;
}

/* The credentials changed: what prctl had set is gone (SPV-2), and a memory dump would carry mail and keys. */
static enum err after_identity(pid_t parent)
{
    struct rlimit core = {0, 0};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_DUMPABLE, SANITIZED, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &core) != 0)
        return ERR_DENIED;
    return getppid() == parent ? ERR_OK : ERR_STOPPING;
}

/* --- the file system --- */

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (UINT64_C(1) << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (UINT64_C(1) << 14)
#endif

#define FS_READ ((uint64_t)(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR))
#define FS_FIRST ((UINT64_C(1) << 13) - 1) /* what ABI 1 knows */
#define FS_MAILDIR                                                                                                    \
    (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |            \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REFER | LANDLOCK_ACCESS_FS_TRUNCATE)

struct landlock { int ruleset; uint64_t handled; uint32_t rules; };

static void allow(struct landlock *l, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access & l->handled};
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return; /* not there: nothing to reach */
    if (syscall(SYS_landlock_add_rule, l->ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0)
        l->rules++;
    close(rule.parent_fd);
}

/* A directory that is still to be made is made in the nearest one that exists. */
static void allow_maildir(void *owner, const char *path)
{
    char at[512];
    snprintf(at, sizeof at, "%s", path);
    for (char *slash = at; access(at, F_OK) != 0 && (slash = strrchr(at, '/')) && slash != at;)
        *slash = '\0';
    allow(owner, at, FS_MAILDIR);
}

static enum err lock_files(const struct config *c, bool mail, char *report, size_t room)
{
    static const char *const read_only[] = {"/etc", "/usr/share", "/usr/lib", "/lib", "/lib64", "/run/systemd/resolve",
                                            "/run/resolvconf", "/run/NetworkManager", "/dev/urandom", "/dev/random"};
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        snprintf(report, room, "files not restricted (no Landlock)");
        return ERR_OK;
    }
    struct landlock l = {.handled = FS_FIRST | (abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) |
                                    (abi >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0)};
    struct landlock_ruleset_attr attr = {.handled_access_fs = l.handled};
    l.ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (l.ruleset < 0) {
        snprintf(report, room, "files not restricted (Landlock: %s)", strerror(errno));
        return ERR_OK;
    }
    for (unsigned i = 0; i < sizeof read_only / sizeof read_only[0]; i++)
        allow(&l, read_only[i], strncmp(read_only[i], "/dev", 4) == 0 ? LANDLOCK_ACCESS_FS_READ_FILE : FS_READ);
    if (SANITIZED)
        allow(&l, "/proc", FS_READ);
    if (c->settings.smtp_tls_ca_file[0])
        allow(&l, c->settings.smtp_tls_ca_file, LANDLOCK_ACCESS_FS_READ_FILE);
    if (mail)
        maildirs_each(c, &l, allow_maildir);
    long failed = syscall(SYS_landlock_restrict_self, l.ruleset, 0);
    close(l.ruleset);
    snprintf(report, room, failed ? "files not restricted (Landlock refused)" : "files restricted (Landlock ABI %ld)", abi);
    return ERR_OK;
}

/* --- system calls --- */

/* What no child ever does, nor a hook that one starts. */
static const char *const denied[] = {
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
    "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "swapon", "swapoff", "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module",
    "delete_module", "create_module", "bpf", "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl",
    "setns", "unshare", "personality", "quotactl", "quotactl_fd", "acct", "settimeofday", "clock_settime",
    "clock_adjtime", "adjtimex", "stime", "iopl", "ioperm", "modify_ldt", "mknod", "mknodat", "name_to_handle_at",
    "open_by_handle_at", "fanotify_init", "lookup_dcookie", "nfsservctl", "vhangup", "syslog", "sethostname",
    "setdomainname", "uselib", "ustat", "sysfs", "_sysctl", "migrate_pages", "move_pages", "vmsplice",
};
/* What a program may want, in vain or not, and a process that starts none never does. */
static const char *const denied_but_to_hooks[] = {"execve", "execveat", "setuid", "setgid", "setreuid", "setregid", "setresuid",
                                                  "setresgid", "setgroups", "setfsuid", "setfsgid", "capset"};
/* The relay has threads but no processes, no rings and no disks. */
static const char *const denied_to_relay[] = {"fork", "vfork", "io_uring_setup", "io_uring_enter", "io_uring_register",
                                              "io_setup", "io_submit", "memfd_secret", "chown", "fchown", "lchown",
                                              "fchownat", "truncate", "mq_open", "shmget", "semget", "msgget", "kill"};

static bool deny(scmp_filter_ctx f, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int call = seccomp_syscall_resolve_name(names[i]);
        if (call < 0)
            continue; /* this architecture or this libseccomp does not know it */
        if (seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), call, 0) != 0)
            return false;
    }
    return true;
}

/* Families up to NETLINK (libc's resolver asks it for addresses) without the exotic ones between. */
static bool deny_families(scmp_filter_ctx f, bool network)
{
    bool ok = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, AF_NETLINK)) == 0;
    for (unsigned family = 0; ok && family <= AF_NETLINK; family++) {
        bool fine = family == AF_UNIX || (network && (family == AF_INET || family == AF_INET6 || family == AF_NETLINK));
        if (!fine)
            ok = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, family)) == 0;
    }
    return ok;
}

static bool deny_clones(scmp_filter_ctx f)
{
    static const uint64_t spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID;
    bool ok = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)) == 0;
    for (uint64_t bit = 1; ok && bit <= spaces; bit <<= 1)
        if (bit & spaces)
            ok = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit)) == 0;
    /* its flags are behind a pointer; libc falls back to clone */
    return ok && seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
}

enum filter { FILTER_SPOOL, FILTER_RELAY, FILTER_HOOKS };

static enum err filter_calls(enum filter which, char *report, size_t room)
{
    bool relay = which == FILTER_RELAY;
    if (SANITIZED) {
        snprintf(report, room, "system calls not filtered (sanitizer build)");
        return ERR_OK;
    }
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    bool ok = f && deny(f, denied, sizeof denied / sizeof denied[0]) && deny_families(f, which != FILTER_SPOOL);
    if (ok && which != FILTER_HOOKS)
        ok = deny(f, denied_but_to_hooks, sizeof denied_but_to_hooks / sizeof denied_but_to_hooks[0]);
    if (ok && relay)
        ok = deny(f, denied_to_relay, sizeof denied_to_relay / sizeof denied_to_relay[0]) && deny_clones(f);
    if (!ok) {
        if (f)
            seccomp_release(f);
        return ERR_NO_MEMORY;
    }
    int failed = seccomp_load(f);
    seccomp_release(f);
    snprintf(report, room, failed ? "system calls not filtered (%s)" : "system calls filtered", strerror(-failed));
    return ERR_OK;
}

/* --- both --- */

/* Identity and capabilities for good; who[]: what came of it. */
static enum err become(const struct identity *identity, char who[80], char report[256])
{
    pid_t parent = getppid();
    if (identity->drops)
        snprintf(who, 80, "user %s", identity->name);
    else
        snprintf(who, 80, "uid %u, privileges not dropped", (unsigned)getuid());
    snprintf(report, 256, "cannot become %s", who);
    enum err e = drop_identity(identity);
    if (e == ERR_OK)
        e = drop_capabilities();
    return e == ERR_OK ? after_identity(parent) : e;
}

static enum err confine(const struct config *c, const struct identity *identity, bool mail, char report[256])
{
    char files[96] = "", calls[96] = "", who[80];
    enum err e = become(identity, who, report);
    if (e != ERR_OK)
        return e;
    if (!c->sandbox) {
        snprintf(report, 256, "%s, sandbox = no", who);
        return ERR_OK;
    }
    e = lock_files(c, mail, files, sizeof files);
    if (e == ERR_OK)
        e = filter_calls(FILTER_RELAY, calls, sizeof calls);
    snprintf(report, 256, "%s, %s, %s", who, files, calls);
    return e;
}

enum err sandbox_relay(const struct config *c, const struct identity *identity, char report[256])
{
    return confine(c, identity, true, report);
}

enum err sandbox_alarm(const struct config *c, const struct identity *identity, char report[256])
{
    char calls[96] = "", who[80];
    if (!c->alarm.hook_program[0])
        return confine(c, identity, false, report);
    enum err e = become(identity, who, report);
    if (e != ERR_OK)
        return e;
    if (c->sandbox)
        e = filter_calls(FILTER_HOOKS, calls, sizeof calls);
    else
        snprintf(calls, sizeof calls, "sandbox = no");
    snprintf(report, 256, "%s, files not restricted (hook_program), %s", who, calls);
    return e;
}

enum err sandbox_spool(char report[256])
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return ERR_DENIED;
    return filter_calls(FILTER_SPOOL, report, 256);
}
