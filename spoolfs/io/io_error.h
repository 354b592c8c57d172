/* SPDX-License-Identifier: Apache-2.0 */
/* The one table from what the kernel said to what the engine is told. Pure. */
#ifndef IO_IO_ERROR_H
#define IO_IO_ERROR_H

#include <base/err.h>
#include <spoolfs/io.h>

struct io_outcome {
    enum io_kind kind;
    bool is_file;      /* a file member: its file system can be full; a block device cannot */
    bool vanished;     /* asked after the failure: the device now has no size, or the descriptor is dead */
    uint32_t length;   /* what was asked for; 0 for flushes */
    int64_t result;    /* bytes moved in all, or -errno */
};

enum err io_error_of(const struct io_outcome *o) MUST_CHECK;

/* For everything but transfers: opening, epoll, threads. */
enum err io_error_of_errno(int number) MUST_CHECK;

#endif
