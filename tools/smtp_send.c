/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: one SMTP session from spooltool to the running relay. A refusal is said with the relay's own words. */
#include "smtp_send.h"

#include "tool.h"

#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define REPLY_BYTES 1024
#define PIECE_BYTES 65536
#define REPLY_PATIENCE_S 120

struct smtp_send {
    FILE *in, *out;
    char reply[REPLY_BYTES];
};

/* The code of the next reply; 0: no reply. Its last line stays in s->reply. */
static int reply(struct smtp_send *s)
{
    do {
        if (!fgets(s->reply, sizeof s->reply, s->in))
            return 0;
        s->reply[strcspn(s->reply, "\r\n")] = 0;
    } while (strlen(s->reply) > 3 && s->reply[3] == '-');
    return atoi(s->reply);
}

static int refused(struct smtp_send *s, const char *what, int code)
{
    return tool_say(TOOL_FAILED, "%s: %s", what, code ? s->reply : "the relay closed the connection");
}

/* The relay takes us for a stranger: which line of its configuration would change that. */
static int refused_as_stranger(struct smtp_send *s, const char *what)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    char host[64];
    if (getsockname(fileno(s->in), (struct sockaddr *)&from, &len) != 0 ||
        getnameinfo((struct sockaddr *)&from, len, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
        return refused(s, what, 554);
    bool six = from.ss_family == AF_INET6;
    return tool_say(TOOL_FAILED, "%s: %s; mail of this host comes from %s, which is not in mynetworks: mynetworks += { \"%s%s%s\" }, then "
                    "systemctl reload ironspool", what, s->reply, host, six ? "[" : "", host, six ? "]/128" : "/32");
}

static int ask(struct smtp_send *s, int wanted, const char *what)
{
    int code = fflush(s->out) == 0 ? reply(s) : 0;
    if (code == wanted)
        return TOOL_DONE;
    return code == 554 && strncmp(s->reply, "554 5.7.1", 9) == 0 ? refused_as_stranger(s, what) : refused(s, what, code);
}

/* Where the relay sees this host come from 127.0.0.1 or ::1, which mynetworks has. */
static const struct config_listen *listener_for_us(const struct config *config)
{
    static const char *const addresses[] = {"0.0.0.0", "::", "::1"};
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const struct config_listen *l = &config->listens[i];
        if (strncmp(l->address, "127.", 4) == 0)
            return l;
        for (size_t k = 0; k < sizeof addresses / sizeof addresses[0]; k++)
            if (strcmp(l->address, addresses[k]) == 0)
                return l;
    }
    return &config->listens[0];
}

static int connect_to(const struct config_listen *l)
{
    char port[8];
    const char *host = strcmp(l->address, "0.0.0.0") == 0 ? "127.0.0.1" : strcmp(l->address, "::") == 0 ? "::1" : l->address;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *to;
    struct timeval patience = {.tv_sec = REPLY_PATIENCE_S};
    snprintf(port, sizeof port, "%u", l->port);
    if (getaddrinfo(host, port, &hints, &to) != 0)
        return -1;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(to);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    return fd;
}

int smtp_send_open(struct tool *t, struct smtp_send **send_out)
{
    const struct config *config = tool_config(t);
    struct smtp_send *s = calloc(1, sizeof *s);
    if (!config || !s || config->listen_count == 0) {
        free(s);
        return config ? tool_say(TOOL_FAILED, "%s has no listen section to send to", t->config_path) : TOOL_FAILED;
    }
    const struct config_listen *to = listener_for_us(config);
    int fd = connect_to(to);
    if (fd < 0) {
        free(s);
        return tool_say(TOOL_UNREACHABLE, "the relay does not answer on %s port %u (%s); is it running?  "
                        "systemctl status ironspool", to->address, to->port, strerror(errno));
    }
    s->in = fdopen(fd, "r");
    s->out = fdopen(dup(fd), "w");
    int code = s->in && s->out ? ask(s, 220, "greeting") : tool_say(TOOL_FAILED, "out of memory");
    if (code == TOOL_DONE) {
        fprintf(s->out, "EHLO localhost\r\n");
        code = ask(s, 250, "EHLO");
    }
    if (code != TOOL_DONE)
        smtp_send_close(&s);
    else
        *send_out = s;
    return code;
}

/* Addresses come from an archive: what could end a command is not sent. */
static bool address_is_safe(const char *address)
{
    return !strpbrk(address, "\r\n<>");
}

static bool ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

static int send_envelope(struct smtp_send *s, const struct doc *envelope, bool hold)
{
    const char *sender = doc_text(envelope, "sender");
    bool utf8 = !ascii(sender);
    for (size_t i = 0; i < doc_length(envelope, "recipients"); i++)
        utf8 |= !ascii(doc_text(doc_item(envelope, "recipients", i), "address"));
    if (!address_is_safe(sender))
        return tool_say(TOOL_FAILED, "a sender of the archive is no address");
    fprintf(s->out, "MAIL FROM:<%s> BODY=8BITMIME%s%s\r\n", sender, utf8 ? " SMTPUTF8" : "", hold ? " XHOLD" : "");
    int code = ask(s, 250, "MAIL");
    for (size_t i = 0; i < doc_length(envelope, "recipients") && code == TOOL_DONE; i++) {
        const char *address = doc_text(doc_item(envelope, "recipients", i), "address");
        if (!address_is_safe(address))
            return tool_say(TOOL_FAILED, "a recipient of the archive is no address");
        fprintf(s->out, "RCPT TO:<%s>\r\n", address);
        code = ask(s, 250, address);
    }
    return code;
}

int smtp_send_message(struct smtp_send *s, const struct doc *envelope, bool hold, FILE *body, uint64_t length)
{
    static char piece[PIECE_BYTES];
    int code = send_envelope(s, envelope, hold);
    uint64_t left = length;
    while (code == TOOL_DONE) {
        size_t n = left < sizeof piece ? (size_t)left : sizeof piece;
        if (fread(piece, 1, n, body) != n)
            return tool_say(TOOL_FAILED, "a message could not be read from its temporary file");
        left -= n;
        fprintf(s->out, "BDAT %zu%s\r\n", n, left ? "" : " LAST");
        fwrite(piece, 1, n, s->out);
        code = ask(s, 250, "BDAT");
        if (!left)
            break;
    }
    return code;
}

void smtp_send_close(struct smtp_send **send)
{
    struct smtp_send *s = *send;
    *send = NULL;
    if (!s)
        return;
    if (s->out) {
        fputs("QUIT\r\n", s->out);
        fclose(s->out);
    }
    if (s->in)
        fclose(s->in);
    free(s);
}
