/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of control clients, the relay's report: arbitrary bytes as JSON. Reading never fails, selectors are taken or
 * refused with a text. */
#include "fuzz_input.h"

#include "daemon/admin_client.h"

#include <base/assert.h>
#include <stdlib.h>

static void read_everything(const struct json_in *in)
{
    static const char *const paths[] = {"command", "name", "id", "count", "follow", "dry_run", "selector",
                                        "selector.ids", "selector.sender", "a.b.c.d", "", "."};
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        ASSERT(json_in_text(in, paths[i]));
        (void)json_in_has(in, paths[i]);
        (void)json_in_count(in, paths[i]);
        (void)json_in_number(in, paths[i]);
        (void)json_in_true(in, paths[i]);
        for (size_t n = json_in_items(in, paths[i]) + 1; n-- > 0;) {
            ASSERT(json_in_item_text(in, paths[i], n));
            (void)json_in_item_count(in, paths[i], n);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct json_in *in = NULL;
    struct admin_selector selector;
    const char *text = NULL;
    char why[160], *exact = malloc(len + 1);
    ASSERT(exact);
    memcpy(exact, bytes, len);
    why[0] = '\0';
    enum err e = json_in_parse(exact, len, why, &in);
    free(exact);
    if (e != ERR_OK) {
        ASSERT(!in && (e != ERR_INVALID || memchr(why, '\0', sizeof why)));
        return 0;
    }
    read_everything(in);
    if (selector_parse(in, &selector, &text) == ERR_OK)
        selector_free(&selector);
    else
        ASSERT(text);
    json_in_free(&in);
    return 0;
}
