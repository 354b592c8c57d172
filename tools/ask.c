/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: one connection to the control socket, one request, one answer. */
#include "ask.h"

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define COPY_BYTES 65536
#define ASK_AGAIN_US 200000 /* a daemon that is being replaced is back within a second */

struct ask {
    FILE *stream;
    char *line;
    size_t line_room;
    struct doc *header;
    const char *command;
    bool forever;
};

static int ask_unreachable(const char *path, int number)
{
    if (number == EACCES || number == EPERM)
        return tool_say(TOOL_DENIED, "%s: not permitted; run as root or as a member of the daemon's group", path);
    return tool_say(TOOL_UNREACHABLE, "the daemon does not answer at %s (%s); is it running?  systemctl status ironspool  "
                    "(with the daemon down: spooltool pool check)", path, strerror(number));
}

static int ask_connect(const char *path, int *fd_out)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = ASK_PATIENCE_S};
    if (strlen(path) >= sizeof to.sun_path)
        return tool_say(TOOL_FAILED, "control_socket = \"%s\" is longer than a socket's path may be", path);
    memcpy(to.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return tool_say(TOOL_FAILED, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        int number = errno;
        close(fd);
        return ask_unreachable(path, number);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    *fd_out = fd;
    return TOOL_DONE;
}

static int ask_cut_short(const struct ask *a)
{
    return tool_say(TOOL_UNREACHABLE, "the daemon's answer to \"%s\" was cut short; look at its log, then ask again",
                    a->command);
}

static int ask_send(struct ask *a, struct doc *request)
{
    if (!request)
        request = doc_object();
    doc_set_text(request, "command", a->command);
    char *line = doc_line(request);
    doc_free(&request);
    size_t len = strlen(line), sent = 0;
    line[len++] = '\n'; /* in the place of the terminator */
    while (sent < len) {
        ssize_t n = send(fileno(a->stream), line + sent, len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    free(line);
    return sent == len ? TOOL_DONE : ask_cut_short(a);
}

/* The next line without its newline; NULL at the end or when the last line has no newline. */
static const char *ask_next_line(struct ask *a)
{
    ssize_t n = getline(&a->line, &a->line_room, a->stream);
    if (n <= 0 || a->line[n - 1] != '\n')
        return NULL;
    a->line[n - 1] = 0;
    return a->line;
}

static int ask_refused(const struct ask *a)
{
    static const struct { const char *error; int code; } codes[] = {
        {"NOT_FOUND", TOOL_NOT_FOUND}, {"DENIED", TOOL_DENIED}, {"SPOOL_GONE", TOOL_UNREACHABLE},
        {"STOPPING", TOOL_UNREACHABLE}};
    const char *error = doc_text(a->header, "error"), *text = doc_text(a->header, "text");
    int code = TOOL_FAILED;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(error, codes[i].error) == 0)
            code = codes[i].code;
    return tool_say(code, "%s: %s", a->command, *text ? text : error);
}

int ask_open(struct tool *t, const char *command, struct doc *request, struct ask **ask_out)
{
    const struct config *config = tool_config(t);
    struct ask *a = NULL;
    int fd = -1, code = config ? ask_connect(config->control_socket, &fd) : TOOL_FAILED;
    if (code == TOOL_DONE && (!(a = calloc(1, sizeof *a)) || !(a->stream = fdopen(fd, "r")))) {
        close(fd);
        free(a);
        code = tool_say(TOOL_FAILED, "out of memory");
    }
    if (code != TOOL_DONE) {
        doc_free(&request);
        return code;
    }
    a->command = command;
    code = ask_send(a, request);
    if (code == TOOL_DONE) {
        const char *line = ask_next_line(a);
        if (!line || doc_parse(line, strlen(line), &a->header) != ERR_OK)
            code = ask_cut_short(a);
        else if (!doc_true(a->header, "ok"))
            code = ask_refused(a);
    }
    if (code != TOOL_DONE)
        ask_close(&a);
    else
        *ask_out = a;
    return code;
}

const struct doc *ask_header(const struct ask *a)
{
    return a->header;
}

bool ask_wait_daemon(struct tool *t)
{
    const struct config *config = tool_config(t);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!config || strlen(config->control_socket) >= sizeof to.sun_path)
        return false;
    memcpy(to.sun_path, config->control_socket, strlen(config->control_socket) + 1);
    for (;; usleep(ASK_AGAIN_US)) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool there = fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, denied = errno == EACCES || errno == EPERM;
        if (fd >= 0)
            close(fd);
        if (there || denied)
            return there;
    }
}

void ask_wait_forever(struct ask *a)
{
    struct timeval forever = {0};
    a->forever = true;
    setsockopt(fileno(a->stream), SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
}

void ask_close(struct ask **ask)
{
    if (!*ask)
        return;
    fclose((*ask)->stream);
    free((*ask)->line);
    doc_free(&(*ask)->header);
    free(*ask);
    *ask = NULL;
}

int ask_document(struct ask *a, struct doc **doc_out)
{
    const char *line = ask_next_line(a);
    if (!line || doc_parse(line, strlen(line), doc_out) != ERR_OK)
        return ask_cut_short(a);
    return TOOL_DONE;
}

/* Copies at most `most` bytes; returns how many came. */
static uint64_t ask_copy(struct ask *a, FILE *to, uint64_t most)
{
    static char buffer[COPY_BYTES];
    uint64_t copied = 0;
    while (copied < most) {
        size_t want = most - copied < sizeof buffer ? (size_t)(most - copied) : sizeof buffer;
        size_t n = fread(buffer, 1, want, a->stream);
        if (n == 0 || fwrite(buffer, 1, n, to) != n)
            break;
        copied += n;
    }
    return copied;
}

int ask_text(struct ask *a, FILE *to)
{
    ask_copy(a, to, UINT64_MAX);
    return feof(a->stream) ? TOOL_DONE : ask_cut_short(a);
}

int ask_bytes(struct ask *a, FILE *to)
{
    uint64_t bytes = doc_count(a->header, "bytes");
    return ask_copy(a, to, bytes) == bytes ? TOOL_DONE : ask_cut_short(a);
}

int ask_lines(struct ask *a, void *owner, void (*one)(void *owner, const struct doc *line, const char *raw),
              struct doc **end_out)
{
    const char *line;
    while ((line = ask_next_line(a))) {
        struct doc *d;
        if (doc_parse(line, strlen(line), &d) != ERR_OK)
            break;
        if (doc_true(d, "end")) {
            *end_out = d;
            return TOOL_DONE;
        }
        one(owner, d, line);
        doc_free(&d);
    }
    return a->forever ? TOOL_UNREACHABLE : ask_cut_short(a);
}

int ask_copy_lines(struct ask *a, FILE *to, struct doc **end_out)
{
    static const char last[] = "{\"end\":";
    const char *line;
    while ((line = ask_next_line(a))) {
        struct doc *d = NULL;
        if (strncmp(line, last, sizeof last - 1) == 0 && doc_parse(line, strlen(line), &d) == ERR_OK && doc_true(d, "end")) {
            *end_out = d;
            return TOOL_DONE;
        }
        doc_free(&d);
        fputs(line, to);
        fputc('\n', to);
    }
    return ask_cut_short(a);
}

int ask_for(struct tool *t, const char *command, struct doc *request, struct doc **doc_out)
{
    struct ask *a;
    int code = ask_open(t, command, request, &a);
    if (code != TOOL_DONE)
        return code;
    code = ask_document(a, doc_out);
    ask_close(&a);
    return code;
}
