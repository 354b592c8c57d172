/* SPDX-License-Identifier: Apache-2.0 */
/* The spool process explains itself: `spooltool status --json`, the same for people, and what both and the metrics are
 * made from. Pure: a view in, a document out. The JSON is a contract (docs/CONFIG.md names the file): every field is
 * always there, numbers are numbers, times RFC 3339 UTC. */
#ifndef DAEMON_STATUS_DOC_H
#define DAEMON_STATUS_DOC_H

#include "events_log.h"
#include "json_in.h"
#include "json_out.h"

#include <spoolfs/pool.h>
#include <spoolfs/upkeep.h>

struct fault_row {                    /* an injected fault */
    uint32_t id, factor;              /* factor 0: not that kind */
    const char *kind, *text;
    char member[MEMBER_NAME_BYTES];
    double rate, seconds_left;
    uint64_t from, to, seed, injected;
};

struct status_view {
    const struct pool_status *pool;   /* made by hand while the pool is not mounted */
    bool mounted;
    const char *mount_text;           /* why not */
    const char *io_engine, *io_why;
    double uptime_seconds;
    uint64_t now_ms;                  /* pool clock */
    struct index_counts queue;
    struct upkeep_status upkeep;      /* all zero while not mounted */
    bool relay_connected;
    const struct json_in *relay;      /* the relay's last report (relay_main.c), or NULL */
    bool alarm_connected;
    const struct json_in *alarm;      /* the alarm process's last report (alarm_main.c), or NULL */
    const struct events_log *events;
    bool fault_injection;
    const struct fault_row *faults;
    uint32_t fault_count;
    uint64_t faults_total;            /* operations faults were injected into */
};

void status_doc_json(const struct status_view *v, struct json_out *j);
void status_doc_text(const struct status_view *v, struct json_out *j);
void status_doc_members(const struct status_view *v, struct json_out *j);
void fault_json(const struct fault_row *f, struct json_out *j);
void faults_json(const struct status_view *v, const char *key, struct json_out *j);
/* Prometheus exposition format; docs/METRICS.md lists them. */
void metrics_doc(const struct status_view *v, struct json_out *j);

/* "1.5 GiB" */
void bytes_print(uint64_t bytes, char text[24]);

#endif
