/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: which directories the configuration names for Maildirs, and whether the relay may write there. Never: changes an owner. */
#include "maildirs.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <log.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void maildir_tell(const char *path, size_t length, void *owner, void (*told)(void *owner, const char *path))
{
    char at[512];
    if (length == 0 || length >= sizeof at || path[0] != '/')
        return;
    snprintf(at, sizeof at, "%.*s", (int)length, path);
    told(owner, at);
}

void maildirs_each(const struct config *c, void *owner, void (*told)(void *owner, const char *path))
{
    char line[4096];
    const char *fixed = c->settings.default_transport;
    if (strncmp(fixed, "maildir:", 8) == 0)
        maildir_tell(fixed + 8, strlen(fixed + 8), owner, told);
    for (uint32_t i = 0; i < c->transport_maps.count; i++) {
        FILE *f = fopen(c->transport_maps.files[i], "re");
        while (f && fgets(line, sizeof line, f)) {
            const char *at = strstr(line, "maildir:/");
            if (at)
                maildir_tell(at + 8, strcspn(at + 8, " \t\r\n#"), owner, told);
        }
        if (f)
            fclose(f);
    }
}

/* One that is still to be made is made in the nearest that exists. */
static void maildir_try(void *owner, const char *path)
{
    const struct identity *identity = owner;
    char at[512];
    snprintf(at, sizeof at, "%s", path);
    int failed;
    for (char *slash = at; (failed = faccessat(AT_FDCWD, at, W_OK | X_OK, AT_EACCESS) ? errno : 0) == ENOENT &&
                           (slash = strrchr(at, '/')) && slash != at;)
        *slash = '\0';
    if (failed && identity->drops)
        log_line("ironspoold", "warning: maildir:%s: user \"%s\" may not write in %s (%s): no mail is delivered there; "
                 "give it the directory (chown %s), or name another user", path, identity->name, at, strerror(failed), identity->name);
    else if (failed)
        log_line("ironspoold", "warning: maildir:%s: %s: %s: no mail is delivered there", path, at, strerror(failed));
}

void maildirs_warn(const struct config *c, const struct identity *identity)
{
    gid_t group = getegid(), groups[64];
    int count = identity->drops ? getgroups(64, groups) : 0;
    if (count < 0)
        return;
    bool became = !identity->drops || (setgroups(1, &identity->gid) == 0 && setegid(identity->gid) == 0 && seteuid(identity->uid) == 0);
    if (became)
        maildirs_each(c, (void *)(uintptr_t)identity, maildir_try);
    if (identity->drops && (seteuid(0) != 0 || setegid(group) != 0 || setgroups((size_t)count, groups) != 0))
        log_line("ironspoold", "warning: not what was started any more: %s", strerror(errno));
}
