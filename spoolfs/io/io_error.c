/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the one classification of results. Measured, not guessed: a disk pulled from under an open descriptor (virtio,
 * NVMe, SCSI) answers writes with ENOSPC, reads with zero bytes, flushes with EIO, and has size 0; it says ENODEV
 * hardly ever. So ENOSPC means "full" only where there is a file system, and a zero-length read is no end of file.
 *  ERR-1  every result has exactly one meaning, and only this file knows it.
 * Never: asks the device anything (io_member.c does, and passes `vanished`). */
#include "io_error.h"

#include <errno.h>

/* What an errno means wherever it comes from; ERR_OK: it depends on the operation. */
static enum err error_plain(int number)
{
    switch (number) {
    case ENODATA: /* SCSI and NVMe: unrecovered read error */
    case EILSEQ:  /* block integrity: protection information does not match */
    case EBADMSG: /* file system or NAND: checksum does not match */
    case EUCLEAN: /* file system found its own structures damaged */
        return ERR_MEDIA;
    case ENODEV:
    case ENXIO:
    case ENOMEDIUM:
    case ENOTCONN:  /* FUSE server died */
    case ESHUTDOWN: /* transport closed */
    case ECONNABORTED:
    case ESTALE:    /* network file system forgot the file */
    case EBADF:
        return ERR_MEMBER_GONE;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECANCELED:
        return ERR_CANCELED;
    case ENOMEM:
    case ENOBUFS:
        return ERR_NO_MEMORY;
    case EAGAIN:
    case EBUSY:
    case EINTR:
        return ERR_BUSY;
    default:
        return ERR_OK;
    }
}

static enum err error_failed(const struct io_outcome *o, int number)
{
    enum err e = error_plain(number);
    if (e != ERR_OK)
        return e;
    switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return o->is_file ? ERR_MEMBER_FULL : ERR_MEMBER_GONE;
    case EOPNOTSUPP:
    case ENOTTY:
        return o->kind == IO_DISCARD ? ERR_INVALID : ERR_IO;
    default: /* EIO, EREMOTEIO, ENOLINK, EPROTO, EROFS, EPERM, EINVAL and whatever a driver invents */
        return ERR_IO;
    }
}

enum err io_error_of(const struct io_outcome *o)
{
    if (o->result < 0 && o->result == -ECANCELED)
        return ERR_CANCELED; /* a wish fulfilled says nothing about the device */
    if (o->vanished && (o->result < 0 || o->result < (int64_t)o->length))
        return ERR_MEMBER_GONE;
    if (o->result < 0)
        return error_failed(o, (int)-o->result);
    if (o->kind == IO_FLUSH || o->kind == IO_DISCARD || o->result == (int64_t)o->length)
        return ERR_OK;
    if (o->result == 0 && o->kind == IO_READ && !o->is_file)
        return ERR_MEMBER_GONE;
    return ERR_SHORT; /* a file cut short under us still holds what is before the cut */
}

enum err io_error_of_errno(int number)
{
    switch (number) {
    case EMFILE:
    case ENFILE:
        return ERR_NO_FD;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EINVAL:
    case ENAMETOOLONG:
        return ERR_INVALID;
    default: {
        enum err e = error_plain(number);
        return e == ERR_OK ? ERR_SYSTEM : e;
    }
    }
}
