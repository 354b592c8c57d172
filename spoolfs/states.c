/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the words of states and events, from the X-tables. */
#include <base/assert.h>
#include <spoolfs/pool.h>

static const struct { const char *word, *text, *action; } pool_states[] = {
#define POOL_STATE(name, word, text, action) [POOL_##name] = {word, text, action},
#include <spoolfs/states.def>
#undef POOL_STATE
};
static const struct { const char *word, *text, *action; } member_states[] = {
#define MEMBER_STATE(name, word, text, action) [MEMBER_##name] = {word, text, action},
#include <spoolfs/states.def>
#undef MEMBER_STATE
};
static const struct { const char *name, *severity, *text; } events[] = {
#define X(name, severity, text) [EVENT_##name] = {#name, #severity, text},
#include <spoolfs/events.def>
#undef X
};

const char *pool_state_word(enum pool_state s)
{
    ASSERT((unsigned)s < POOL_STATE_COUNT);
    return pool_states[s].word;
}

const char *pool_state_text(enum pool_state s)
{
    ASSERT((unsigned)s < POOL_STATE_COUNT);
    return pool_states[s].text;
}

const char *pool_state_action(enum pool_state s)
{
    ASSERT((unsigned)s < POOL_STATE_COUNT);
    return pool_states[s].action;
}

const char *member_state_word(enum member_state s)
{
    ASSERT((unsigned)s < MEMBER_STATE_COUNT);
    return member_states[s].word;
}

const char *member_state_text(enum member_state s)
{
    ASSERT((unsigned)s < MEMBER_STATE_COUNT);
    return member_states[s].text;
}

const char *member_state_action(enum member_state s)
{
    ASSERT((unsigned)s < MEMBER_STATE_COUNT);
    return member_states[s].action;
}

const char *io_class_word(enum io_class c)
{
    static const char *const words[IO_CLASS_COUNT] = {"commit", "delivery", "repair", "rebuild",
                                                      "evacuate", "scrub", "compaction", "backup"};
    ASSERT((unsigned)c < IO_CLASS_COUNT);
    return words[c];
}

const char *event_name(enum event_kind e)
{
    ASSERT((unsigned)e < EVENT_COUNT);
    return events[e].name;
}

const char *event_severity(enum event_kind e)
{
    ASSERT((unsigned)e < EVENT_COUNT);
    return events[e].severity;
}

const char *event_text(enum event_kind e)
{
    ASSERT((unsigned)e < EVENT_COUNT);
    return events[e].text;
}
