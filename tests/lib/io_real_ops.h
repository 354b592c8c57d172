/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the real worlds have in common: a file for a member, ops, one aligned buffer. To be included by the one
 * .c of a test program. */
#ifndef IO_REAL_OPS_H
#define IO_REAL_OPS_H

#include <setjmp.h>
#include <spoolfs/io_real.h>
#include <spoolfs/limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#define UNUSED __attribute__((unused))

#define BYTES (4 * MIB)
#define TURN_NS UINT64_C(100000000)

static UNUSED int make_file(const char *directory)
{
    char path[64];
    snprintf(path, sizeof path, "%s/io-real-XXXXXX", directory);
    int fd = mkstemp(path);
    if (fd >= 0)
        unlink(path);
    if (fd >= 0 && posix_fallocate(fd, 0, (off_t)BYTES) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static UNUSED uint8_t *aligned; /* one block */
static UNUSED struct io_op ops[200];

static UNUSED struct io_op *op_of(uint32_t i, enum io_kind kind, enum io_class class, uint32_t length)
{
    bool bytes = kind == IO_READ || kind == IO_WRITE;
    ops[i] = (struct io_op){.kind = kind, .class = class, .length = length, .buffer = bytes ? aligned : NULL};
    return &ops[i];
}

static UNUSED int setup(void **state)
{
    (void)state;
    return posix_memalign((void **)&aligned, BLOCK_BYTES, 4 * BLOCK_BYTES);
}

static UNUSED int teardown(void **state)
{
    (void)state;
    free(aligned);
    return 0;
}

#endif
