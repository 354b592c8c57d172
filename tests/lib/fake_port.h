/* SPDX-License-Identifier: Apache-2.0 */
/* A spool that is a few variables, in place of relay/port.c at link time. To be included by the one .c of a test
 * program, before anything uses port.h. Answers appends when told to; keeps the bodies it was given. */
#ifndef TESTS_FAKE_PORT_H
#define TESTS_FAKE_PORT_H

#include "port.h"

#include <stdlib.h>
#include <string.h>

struct port {
    int unused;
};

static struct {
    struct port port;
    struct port_status status;
    uint64_t reserved, reserved_most;
    uint64_t next_id;
    unsigned ids_busy, appends_busy, chunks_busy; /* how many more times ERR_BUSY is said */
    enum err reserve_says, append_says, chunk_says;
    bool answer_at_once;
    enum err answer;
    struct port_append *appends[64];
    unsigned append_count;
    unsigned chunks, aborts;
    uint8_t *stored;     /* CHUNKs in order */
    size_t stored_bytes;
    unsigned trays;      /* how many there are; each is memory of its own, so that a sanitizer sees its ends */
    uint8_t *tray[4];    /* taken; NULL: free */
} fake;

static void fake_port_reset(void)
{
    free(fake.stored);
    memset(&fake, 0, sizeof fake);
    fake.status.connected = fake.status.index_ready = true;
    fake.status.free_bytes = UINT64_C(1) << 40;
    fake.status.pool_clock_ms = 1700000000000;
}

static void fake_port_answer(unsigned i, enum err e)
{
    struct port_append *a = fake.appends[i];
    memmove(fake.appends + i, fake.appends + i + 1, (--fake.append_count - i) * sizeof *fake.appends);
    if (!e)
        a->mail->locator = (struct segment_id){7, 9};
    a->done(a, e);
}

struct port_status port_status(const struct port *port)
{
    (void)port;
    return fake.status;
}

uint64_t port_clock_ms(const struct port *port)
{
    (void)port;
    return fake.status.pool_clock_ms;
}

enum err port_take_queue_id(struct port *port, struct queue_id *qid_out)
{
    (void)port;
    if (fake.ids_busy) {
        fake.ids_busy--;
        return ERR_BUSY;
    }
    *qid_out = (struct queue_id){0x1234567890abcdef, ++fake.next_id};
    return ERR_OK;
}

enum err port_reserve(struct port *port, uint64_t bytes)
{
    (void)port;
    if (fake.reserve_says)
        return fake.reserve_says;
    fake.reserved += bytes;
    if (fake.reserved > fake.reserved_most)
        fake.reserved_most = fake.reserved;
    return ERR_OK;
}

void port_unreserve(struct port *port, uint64_t bytes)
{
    (void)port;
    ASSERT(bytes <= fake.reserved);
    fake.reserved -= bytes;
}

enum err port_append(struct port *port, struct port_append *a)
{
    (void)port;
    if (fake.appends_busy) {
        fake.appends_busy--;
        return ERR_BUSY;
    }
    if (fake.append_says)
        return fake.append_says;
    ASSERT(fake.append_count < 64);
    fake.appends[fake.append_count++] = a;
    if (fake.answer_at_once)
        fake_port_answer(fake.append_count - 1, fake.answer);
    return ERR_OK;
}

uint8_t *port_tray_take(struct port *port)
{
    (void)port;
    for (unsigned i = 0; i < fake.trays; i++)
        if (!fake.tray[i])
            return fake.tray[i] = malloc(CHUNK_BYTES_MAX);
    return NULL;
}

void port_tray_give(struct port *port, uint8_t *tray)
{
    (void)port;
    for (unsigned i = 0; i < 4; i++) {
        if (fake.tray[i] == tray) {
            free(tray);
            fake.tray[i] = NULL;
            return;
        }
    }
    UNREACHABLE(); /* a tray that was not taken */
}

enum err port_chunk(struct port *port, struct queue_id qid, uint32_t number, const void *bytes, uint32_t len)
{
    (void)port;
    (void)qid;
    if (fake.chunks_busy) {
        fake.chunks_busy--;
        return ERR_BUSY;
    }
    if (fake.chunk_says)
        return fake.chunk_says;
    ASSERT(number == fake.chunks);
    ASSERT(len > 0 && len <= CHUNK_BYTES_MAX);
    fake.stored = realloc(fake.stored, fake.stored_bytes + len);
    ASSERT(fake.stored);
    memcpy(fake.stored + fake.stored_bytes, bytes, len);
    fake.stored_bytes += len;
    fake.chunks++;
    for (unsigned i = 0; i < 4; i++)
        if (fake.tray[i] == bytes)
            port_tray_give(port, fake.tray[i]);
    return ERR_OK;
}

void port_abort(struct port *port, struct queue_id qid)
{
    (void)port;
    (void)qid;
    fake.aborts++;
}

#endif
