/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk says about its own health: smartctl's JSON in, a verdict with its evidence out. Pure; the bytes are
 * foreign: whatever they are, there is a verdict.
 *
 *   failing    the drive says so itself, an attribute is below its threshold now, or NVMe warns of spare, reliability or
 *              a read-only medium: replace it
 *   attention  sectors were or wait to be reallocated, reads stay in error, media errors, worn out by its own measure,
 *              or errors in its logs: such drives fail more often than others (design/0031)
 *   passed     none of it
 *   unknown    no SMART, no answer, or not readable */
#ifndef DAEMON_SMART_H
#define DAEMON_SMART_H

#include "json_out.h"

#include <base/err.h>

#define SMART_BYTES_MAX ((uint32_t)(256 * 1024)) /* of one answer: 20 to 60 KiB is usual */

enum smart_verdict { SMART_UNKNOWN, SMART_PASSED, SMART_ATTENTION, SMART_FAILING };

struct smart_report {
    enum smart_verdict verdict;
    char model[64], serial[64], evidence[160];
    /* counts the drive keeps; 0 also when it has no such thing */
    uint64_t reallocated, pending, uncorrectable, media_errors, percentage_used, critical_warning;
    uint64_t temperature_celsius, power_on_hours;
};

void smart_parse(const char *bytes, uint32_t len, struct smart_report *report_out);
const char *smart_verdict_word(enum smart_verdict v);
enum smart_verdict smart_verdict_of(const char *word); /* SMART_UNKNOWN for what is none */
void smart_report_members(const struct smart_report *r, struct json_out *j); /* into an object that is open */

#endif
