/* SPDX-License-Identifier: Apache-2.0 */
/* Errors.  Every function that can fail returns `enum err` and is warn_unused_result (MUST_CHECK).
 * The world (disk, peer, operator) yields an error; foreign bytes yield a verdict, never an assert. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
    ERR_OK = 0,
#define X(name, class, text) ERR_##name,
#include <spoolfs/errors.def>
#undef X
    ERR_COUNT
};

enum err_class {
    ERR_CLASS_NONE,
    ERR_CLASS_TRANSIENT,
    ERR_CLASS_FULL,
    ERR_CLASS_DEGRADED,
    ERR_CLASS_CORRUPT,
    ERR_CLASS_LOST,
    ERR_CLASS_INVALID,
    ERR_CLASS_CANCELED,
};

/* The symbolic name ("MEMBER_GONE"), the text for people, the class.  Static strings. */
const char *err_name(enum err e);
const char *err_text(enum err e);
enum err_class err_class(enum err e);

#endif
