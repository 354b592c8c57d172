/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration of arbitrary bytes: refused with a text that names the file (CFG-1), or a config whose limits hold. */
#include "fuzz_input.h"

#include "daemon/config.h"

#include <base/assert.h>
#include <stdlib.h>

static void check_config(const struct config *c)
{
    const struct pool_config *p = &c->pool;
    ASSERT(p->member_count <= MEMBERS_MAX && c->listen_count <= CONFIG_LISTENS_MAX);
    ASSERT(c->transport_maps.count <= CONFIG_MAPS_MAX && c->alias_maps.count <= CONFIG_MAPS_MAX);
    ASSERT(p->copies >= 1 && p->copies <= COPIES_MAX && p->min_copies >= 1 && p->min_copies <= p->copies);
    ASSERT(memchr(c->control_socket, '\0', sizeof c->control_socket));
    for (uint32_t i = 0; i < p->member_count; i++)
        ASSERT(p->members[i].name[0] && p->members[i].path[0]);
    for (uint32_t i = 0; i < c->listen_count; i++)
        ASSERT(c->listens[i].port <= 65535);
    ASSERT(!config_spool_differs(c, c));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char text[CONFIG_TEXT_BYTES], *exact = malloc(len + 1);
    struct config *c = NULL;
    ASSERT(exact);
    memcpy(exact, bytes, len);
    if (len <= CONFIG_FILE_BYTES_MAX) {
        if (config_parse("test.conf", exact, (uint32_t)len, &c, text) == ERR_OK) {
            check_config(c);
            config_free(&c);
        } else {
            ASSERT(!c && memchr(text, '\0', sizeof text) && strncmp(text, "test.conf", 9) == 0);
        }
    }
    free(exact);
    return 0;
}
