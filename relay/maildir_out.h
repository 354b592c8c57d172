/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery into Maildirs by a few worker threads, so that no fsync stops the loop.
 *
 *  MDR-1  done(ERR_OK) means: the file is in new/, and file and directory are on stable storage.
 *  MDR-2  the file's name follows from queue id and recipient, so that delivering again after a crash replaces the
 *         copy in new/, or finds it in cur/, and makes no second one. A reader that sets flags other than "S" on it,
 *         or removes it, before the second delivery gets a second copy.
 *  MDR-3  the bytes after the Return-Path and Delivered-To lines are the stored body, byte for byte, CRLF included.
 *
 * "Addresses become directories": ROOT/user@example.org/{tmp,new,cur}; domains in lower case, bytes that do not belong
 * into a file name as %XX; an address longer than a file name ends in a digest of it. */
#ifndef RELAY_MAILDIR_OUT_H
#define RELAY_MAILDIR_OUT_H

#include "loop.h"

#include <base/ids.h>
#include <stddef.h>

#define MAILDIR_THREADS 4u   /* choice: enough to share one journal commit of the file system among */
#define MAILDIR_BATCH_MAX 16u /* deliveries one thread takes at once: all written, then all flushed */
#define MAILDIR_QUEUE_MAX 1024u
#define MAILDIR_NAME_BYTES 256u

struct maildir_out;

/* One recipient of one message. A small message goes in one step (first and last); a large one in several, the next
 * submitted after the last one's done. Everything is the caller's and stays until done; a delivery that began and got
 * no last step must be given up with maildir_out_abandon. */
struct maildir_delivery {
    const char *root;
    const char *recipient, *sender;
    uint32_t recipient_len, sender_len;
    struct queue_id qid;
    uint32_t recipient_index;
    uint64_t arrival_ms;
    const char *hostname;
    bool again;                 /* not the first attempt: look into cur/ as well */
    bool first, last;
    const uint8_t *bytes;
    size_t len;
    void (*done)(struct maildir_delivery *d, enum err e, const char *what); /* what: the step that failed */
    void *owner;
    /* private */
    struct link link;
    int fd;
    enum err result;
    int result_errno;
    const char *step;
    bool present;               /* found delivered already */
    char directory[512], name[MAILDIR_NAME_BYTES];
};

enum err maildir_out_open(struct loop *loop, struct maildir_out **m_out) MUST_CHECK;
/* Waits for the steps in flight; no callback follows. */
void maildir_out_close(struct maildir_out **m);
enum err maildir_out_submit(struct maildir_out *m, struct maildir_delivery *d) MUST_CHECK; /* ERR_BUSY */
/* Removes what was begun. Only between steps. Blocks for one unlink. */
void maildir_out_abandon(struct maildir_delivery *d);

/* ROOT/address. ERR_TOO_LARGE. */
enum err maildir_directory(const char *root, const char *address, uint32_t len, char *path, uint32_t capacity) MUST_CHECK;

#endif
