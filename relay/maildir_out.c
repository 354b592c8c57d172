/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the worker threads and the files they write: tmp/NAME, fsync, rename to new/NAME, fsync of new/. A worker takes
 * what waits, up to MAILDIR_BATCH_MAX, writes all of it before it flushes any, so that one journal commit serves many.
 * Threads share nothing with the loop but two lists under one mutex. Invariants in maildir_out.h. */
#include "maildir_out.h"

#include <base/assert.h>
#include <base/digest.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct maildir_out {
    struct loop *loop;
    struct loop_watch watch;      /* the eventfd */
    pthread_t threads[MAILDIR_THREADS];
    uint32_t thread_count;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct link todo, finished;   /* under lock */
    uint32_t todo_count;          /* under lock */
    bool stopping;                /* under lock */
    uint32_t held;                /* submitted, not yet called back; loop's thread */
};

/* --- names --- */

static bool plain(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '/' && c != '%' && c != '\\';
}

enum err maildir_directory(const char *root, const char *address, uint32_t len, char *path, uint32_t capacity)
{
    char name[3 * 400 + 1];
    uint32_t used = 0;
    const char *at = memrchr(address, '@', len);
    if (len > 400)
        return ERR_TOO_LARGE;
    for (uint32_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)address[i];
        if (at && address + i > at)
            c = (unsigned char)tolower(c);
        if (plain(c) && !(i == 0 && c == '.'))
            name[used++] = (char)c;
        else
            used += (uint32_t)sprintf(name + used, "%%%02X", c);
    }
    name[used] = '\0';
    if (used == 0)
        snprintf(name, sizeof name, "%%");
    if (used > 200) { /* NAME_MAX is 255: cut, and tell those with the same beginning apart */
        struct digest d = digest_of(name, used);
        snprintf(name + 180, sizeof name - 180, "%%%016llx", (unsigned long long)d.lo);
    }
    int n = snprintf(path, capacity, "%s/%s", root, name);
    return n < 0 || (uint32_t)n >= capacity ? ERR_TOO_LARGE : ERR_OK;
}

static void set_name(struct maildir_delivery *d)
{
    char qid[QUEUE_ID_TEXT], host[65];
    queue_id_print(d->qid, qid);
    snprintf(host, sizeof host, "%.64s", d->hostname);
    for (char *c = host; *c; c++)
        if (*c == '/' || *c == ':')
            *c = '_';
    snprintf(d->name, sizeof d->name, "%llu.Q%sR%u.%s", (unsigned long long)(d->arrival_ms / 1000), qid,
             d->recipient_index, host);
}

/* --- in a worker --- */

static void fail(struct maildir_delivery *d, const char *step)
{
    d->result_errno = errno;
    d->result = errno == ENOSPC || errno == EDQUOT ? ERR_FULL : errno == EACCES || errno == EPERM ? ERR_DENIED : ERR_IO;
    d->step = step;
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

static bool flush_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        int keep = errno;
        close(fd);
        errno = keep;
    }
    return ok;
}

/* As far as it can be made; what is missing in the end is noticed below it. */
static void make_root(const char *root)
{
    char path[512];
    snprintf(path, sizeof path, "%s", root);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    (void)mkdir(path, 0755);
}

static bool make_directories(const struct maildir_delivery *d)
{
    static const char *const parts[] = {"", "/tmp", "/cur", "/new"};
    char path[sizeof d->directory + 8];
    make_root(d->root);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", d->directory, parts[i]);
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return false;
    }
    return flush_path(d->directory) && flush_path(d->root); /* the new names must outlive a crash as the mail does */
}

static bool is_in_cur(const struct maildir_delivery *d)
{
    static const char *const flags[] = {"", ":2,", ":2,S"};
    char path[sizeof d->directory + MAILDIR_NAME_BYTES + 16];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/cur/%s%s", d->directory, d->name, flags[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static bool write_all(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void begin(struct maildir_delivery *d)
{
    char path[sizeof d->directory + MAILDIR_NAME_BYTES + 16];
    snprintf(path, sizeof path, "%s/tmp/%s", d->directory, d->name);
    if (d->again && is_in_cur(d)) {
        d->present = true;
        return;
    }
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    d->fd = open(path, flags, 0600);
    if (d->fd < 0 && errno == ENOENT) {
        if (!make_directories(d)) {
            fail(d, "making the Maildir");
            return;
        }
        d->fd = open(path, flags, 0600);
    }
    if (d->fd < 0) {
        fail(d, "opening a file in tmp");
        return;
    }
    char head[1024];
    int n = snprintf(head, sizeof head, "Return-Path: <%.*s>\r\nDelivered-To: %.*s\r\n", (int)d->sender_len, d->sender,
                     (int)d->recipient_len, d->recipient);
    if (n < 0 || (size_t)n >= sizeof head || !write_all(d->fd, head, (size_t)n))
        fail(d, "writing");
}

static void write_step(struct maildir_delivery *d)
{
    if (d->first)
        begin(d);
    if (d->result == ERR_OK && !d->present && !write_all(d->fd, d->bytes, d->len))
        fail(d, "writing");
}

static void rename_step(struct maildir_delivery *d)
{
    char from[sizeof d->directory + MAILDIR_NAME_BYTES + 16], to[sizeof from];
    if (fsync(d->fd) != 0) {
        fail(d, "fsync of the file");
        return;
    }
    int failed = close(d->fd);
    d->fd = -1;
    snprintf(from, sizeof from, "%s/tmp/%s", d->directory, d->name);
    snprintf(to, sizeof to, "%s/new/%s", d->directory, d->name);
    if (failed || rename(from, to) != 0)
        fail(d, "rename into new");
}

static void flush_directories(struct maildir_delivery **batch, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct maildir_delivery *d = batch[i];
        if (!d->last || d->present || d->result)
            continue;
        bool flushed = false;
        for (uint32_t j = 0; j < i && !flushed; j++) /* all renames of the batch are done: one flush serves them all */
            flushed = batch[j]->last && !batch[j]->present && batch[j]->result == ERR_OK &&
                      strcmp(batch[j]->directory, d->directory) == 0;
        char path[sizeof d->directory + 8];
        snprintf(path, sizeof path, "%s/new", d->directory);
        if (!flushed && !flush_path(path))
            fail(d, "fsync of new");
    }
}

static void work_on(struct maildir_delivery **batch, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        write_step(batch[i]);
    for (uint32_t i = 0; i < count; i++)
        if (batch[i]->last && !batch[i]->present && batch[i]->result == ERR_OK)
            rename_step(batch[i]);
    flush_directories(batch, count);
}

static void *worker(void *arg)
{
    struct maildir_out *m = arg;
    struct maildir_delivery *batch[MAILDIR_BATCH_MAX];
    pthread_mutex_lock(&m->lock);
    while (true) {
        while (link_empty(&m->todo) && !m->stopping)
            pthread_cond_wait(&m->work, &m->lock);
        if (link_empty(&m->todo))
            break;
        /* an equal part of what waits, so that one thread does not flush alone what four could overlap */
        uint32_t share = (m->todo_count + MAILDIR_THREADS - 1) / MAILDIR_THREADS, count = 0;
        share = share < MAILDIR_BATCH_MAX ? share : MAILDIR_BATCH_MAX;
        while (count < share)
            batch[count++] = CONTAINER_OF(link_pop(&m->todo), struct maildir_delivery, link);
        m->todo_count -= count;
        pthread_mutex_unlock(&m->lock);
        work_on(batch, count);
        pthread_mutex_lock(&m->lock);
        for (uint32_t i = 0; i < count; i++)
            link_push(&m->finished, &batch[i]->link);
        uint64_t one = 1;
        ssize_t n = write(m->watch.fd, &one, sizeof one);
        (void)n; /* full counter: the loop will come anyway */
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* --- in the loop --- */

static void finished_ready(struct loop_watch *w, bool readable, bool writable)
{
    struct maildir_out *m = w->owner;
    (void)readable;
    (void)writable;
    uint64_t count;
    ssize_t n = read(w->fd, &count, sizeof count);
    (void)n;
    for (;;) {
        pthread_mutex_lock(&m->lock);
        struct link *l = link_pop(&m->finished);
        pthread_mutex_unlock(&m->lock);
        if (!l)
            return;
        struct maildir_delivery *d = CONTAINER_OF(l, struct maildir_delivery, link);
        m->held--;
        errno = d->result_errno;
        d->done(d, d->result, d->step);
    }
}

enum err maildir_out_open(struct loop *loop, struct maildir_out **m_out)
{
    struct maildir_out *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NO_MEMORY;
    m->loop = loop;
    link_init(&m->todo);
    link_init(&m->finished);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->work, NULL);
    m->watch = (struct loop_watch){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = finished_ready, .owner = m};
    enum err e = m->watch.fd < 0 ? ERR_NO_FD : loop_watch_add(loop, &m->watch, true, false);
    sigset_t all, before; /* signals belong to the loop's thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i < MAILDIR_THREADS && !e; i++) {
        if (pthread_create(&m->threads[i], NULL, worker, m) != 0)
            e = ERR_SYSTEM;
        else
            m->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) {
        maildir_out_close(&m);
        return e;
    }
    *m_out = m;
    return ERR_OK;
}

void maildir_out_close(struct maildir_out **m_in)
{
    struct maildir_out *m = *m_in;
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->lock);
    for (uint32_t i = 0; i < m->thread_count; i++)
        pthread_join(m->threads[i], NULL);
    while (!link_empty(&m->finished))
        link_pop(&m->finished);
    loop_watch_remove(&m->watch);
    if (m->watch.fd >= 0)
        close(m->watch.fd);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->work);
    free(m);
    *m_in = NULL;
}

enum err maildir_out_submit(struct maildir_out *m, struct maildir_delivery *d)
{
    if (m->held == MAILDIR_QUEUE_MAX)
        return ERR_BUSY;
    d->result = ERR_OK;
    d->result_errno = 0;
    d->step = "";
    d->link = (struct link){NULL, NULL};
    if (d->first) {
        d->fd = -1;
        d->present = false;
        set_name(d);
        if (maildir_directory(d->root, d->recipient, d->recipient_len, d->directory, sizeof d->directory) != ERR_OK)
            return ERR_TOO_LARGE;
    }
    m->held++;
    pthread_mutex_lock(&m->lock);
    link_push(&m->todo, &d->link);
    m->todo_count++;
    pthread_cond_signal(&m->work);
    pthread_mutex_unlock(&m->lock);
    return ERR_OK;
}

void maildir_out_abandon(struct maildir_delivery *d)
{
    if (d->fd < 0)
        return;
    char path[sizeof d->directory + MAILDIR_NAME_BYTES + 16];
    close(d->fd);
    d->fd = -1;
    snprintf(path, sizeof path, "%s/tmp/%s", d->directory, d->name);
    unlink(path);
}
