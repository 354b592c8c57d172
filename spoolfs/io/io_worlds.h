/* SPDX-License-Identifier: Apache-2.0 */
/* How a loop becomes one of the two worlds. On failure the loop is as before. */
#ifndef IO_IO_WORLDS_H
#define IO_IO_WORLDS_H

#include "io_loop.h"

enum err io_posix_open(struct io_loop *loop) MUST_CHECK;
/* ERR_DENIED or ERR_SYSTEM when io_uring is not to be had here; loop->why then says why. */
enum err io_uring_open(struct io_loop *loop) MUST_CHECK;

#endif
