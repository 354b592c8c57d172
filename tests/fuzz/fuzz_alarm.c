/* SPDX-License-Identifier: Apache-2.0 */
/* What the alarm process reads: URLs of the configuration, the first line of a web server's answer, packets of the spool.
 * The first byte says which. A URL that is taken makes a request that fits and holds no byte of its own making. */
#include "fuzz_input.h"

#include "daemon/alarm_state.h"
#include "daemon/alarm_url.h"
#include "daemon/alarm_view.h"

#include <base/assert.h>
#include <stdlib.h>

static void url(const char *text)
{
    struct alarm_url u;
    char why[256] = "", head[ALARM_URL_BYTES + 512];
    if (alarm_url_parse(text, &u, why) != ERR_OK) {
        ASSERT(why[0]);
        return;
    }
    ASSERT(u.host[0] && u.port > 0 && u.target[0] == '/');
    size_t len = alarm_url_request(&u, 10, head, sizeof head);
    ASSERT(len > 4 && memcmp(head + len - 4, "\r\n\r\n", 4) == 0);
    ASSERT(memmem(head, len - 4, "\r\n\r\n", 4) == NULL);
}

static void answer(const char *bytes, size_t len)
{
    unsigned status = 0, again = 0;
    enum err e = alarm_url_answer(bytes, len, &status);
    ASSERT(e != ERR_OK || (status >= 100 && status <= 599));
    for (size_t part = 0; part < len && part < 64; part++) /* a verdict on a part is not taken back */
        if (alarm_url_answer(bytes, part, &again) == ERR_OK)
            ASSERT(e == ERR_OK && status == again);
}

static void count(void *owner, const struct alarm_note *n)
{
    struct json_out j = {0};
    struct json_in *in = NULL;
    alarm_note_json(n, "h", &j);
    ASSERT(json_in_parse(j.bytes, j.len, NULL, &in) == ERR_OK);
    json_in_free(&in);
    json_free(&j);
    ++*(unsigned *)owner;
}

static void packet(const char *bytes, size_t len)
{
    static struct alarm_state s;
    static struct alarm_view v;
    struct alarm_limits limits = {.repeat_ms = 1000, .beat_ms = 1000, .late_seconds = 1};
    struct alarm_event event;
    struct json_in *in = NULL;
    unsigned notes = 0;
    if (json_in_parse(bytes, len, NULL, &in) != ERR_OK)
        return;
    alarm_state_init(&s, &limits, 1);
    s.owner = &notes;
    s.emit = count;
    alarm_view_read(in, &v);
    ASSERT(v.member_count <= MEMBERS_MAX);
    alarm_state_saw(&s, &v, 1000);
    if (alarm_event_read(in, &event) == ERR_OK)
        alarm_state_happened(&s, &event, 1000);
    for (uint64_t now = 2000; now < 90000; now += 1000)
        alarm_state_step(&s, now, now);
    ASSERT(notes >= 1); /* the silence */
    json_in_free(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char *exact = malloc(len + 1);
    ASSERT(exact);
    memcpy(exact, bytes, len);
    exact[len] = 0;
    if (len > 0 && bytes[0] % 3 == 0)
        url(exact + 1);
    else if (len > 0 && bytes[0] % 3 == 1)
        answer(exact + 1, len - 1);
    else if (len > 0)
        packet(exact + 1, len - 1);
    free(exact);
    return 0;
}
