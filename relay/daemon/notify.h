/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is told (sd_notify's protocol, without its library): READY, RELOADING, STOPPING, WATCHDOG, STATUS. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

/* Reads NOTIFY_SOCKET and WATCHDOG_USEC and removes them from the environment. Harmless without systemd. */
void notify_open(void);
void notify_close(void);
/* One datagram: "READY=1\nSTATUS=...". Never blocks; what does not fit is lost. */
void notify_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void notify_reloading(void); /* RELOADING=1 with MONOTONIC_USEC, as Type=notify-reload asks */
uint64_t notify_watchdog_ms(void); /* half of what systemd waits for; 0: no watchdog */

#endif
