/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the table of errors. Reads: <spoolfs/errors.def>. */
#include <base/assert.h>
#include <base/err.h>

static const struct {
    const char *name;
    enum err_class class;
    const char *text;
} errors[ERR_COUNT] = {
    [ERR_OK] = {"OK", ERR_CLASS_NONE, "ok"},
#define X(name, class, text) [ERR_##name] = {#name, ERR_CLASS_##class, text},
#include <spoolfs/errors.def>
#undef X
};

const char *err_name(enum err e)
{
    ASSERT((unsigned)e < ERR_COUNT);
    return errors[e].name;
}

const char *err_text(enum err e)
{
    ASSERT((unsigned)e < ERR_COUNT);
    return errors[e].text;
}

enum err_class err_class(enum err e)
{
    ASSERT((unsigned)e < ERR_COUNT);
    return errors[e].class;
}
