/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: answers to "where on which member". Looks, never changes anything. */
#include "engine.h"

#include <spoolfs/locate.h>
#include <string.h>

/* NULL: what this target holds is not in service, or was never. */
static const struct member *member_on(const struct pool *p, uint32_t target)
{
    for (uint32_t i = 0; i < MEMBERS_MAX; i++) {
        const struct member *m = &p->members[i];
        if (m->used && m->superblock_good && m->target == target) /* good: it was attached at the mount */
            return m;
    }
    return NULL;
}

enum err pool_target_of(struct pool *p, const char *name, uint16_t *target_out)
{
    enum err e = ERR_NOT_FOUND;
    for (uint32_t i = 0; i < MEMBERS_MAX; i++)
        if (p->members[i].used && strcmp(p->members[i].name, name) == 0)
            e = ERR_MEMBER_GONE;
    for (uint16_t t = 0; t < MEMBERS_MAX; t++) {
        const struct member *m = member_on(p, t);
        if (!m || strcmp(m->name, name) != 0)
            continue;
        *target_out = t;
        return ERR_OK;
    }
    return e;
}

const char *pool_name_of(struct pool *p, uint16_t target)
{
    const struct member *m = member_on(p, target);
    return m ? m->name : "";
}

bool pool_target_serves(struct pool *p, uint16_t target)
{
    const struct member *m = member_on(p, target);
    return m && m->present;
}

enum err pool_locate(struct pool *p, uint16_t target, const struct place *place, uint64_t *offset_out)
{
    const struct segment *s = segment_find(p, place->segment);
    for (uint32_t i = 0; s && i < s->image_count; i++) {
        if (&p->members[s->images[i].member] != member_on(p, target))
            continue;
        *offset_out = segment_image_offset(p, &s->images[i]) + place->frame + place->record;
        return ERR_OK;
    }
    return ERR_NOT_FOUND;
}
