/* SPDX-License-Identifier: Apache-2.0 */
/* What smartctl prints, or whatever stands in its place: a verdict with evidence, the same twice, and JSON of it that
 * reads back as it was. */
#include "fuzz_input.h"

#include "daemon/json_in.h"
#include "daemon/smart.h"

#include <base/assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct smart_report a, b;
    struct json_out j = {0};
    struct json_in *in = NULL;
    char *exact = malloc(len ? len : 1);
    ASSERT(exact);
    memcpy(exact, bytes, len);
    smart_parse(exact, (uint32_t)len, &a);
    smart_parse(exact, (uint32_t)len, &b);
    ASSERT(a.verdict == b.verdict && strcmp(a.evidence, b.evidence) == 0);
    ASSERT(a.evidence[0] && memchr(a.evidence, 0, sizeof a.evidence) && memchr(a.model, 0, sizeof a.model));
    ASSERT(smart_verdict_of(smart_verdict_word(a.verdict)) == a.verdict);
    ASSERT(!(a.pending || a.uncorrectable || a.media_errors || a.reallocated) || a.verdict >= SMART_ATTENTION);
    json_object_begin(&j, NULL);
    smart_report_members(&a, &j);
    json_object_end(&j);
    ASSERT(json_in_parse(j.bytes, j.len, NULL, &in) == ERR_OK);
    ASSERT(strcmp(json_in_text(in, "verdict"), smart_verdict_word(a.verdict)) == 0);
    json_in_free(&in);
    json_free(&j);
    free(exact);
    return 0;
}
