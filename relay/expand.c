/* SPDX-License-Identifier: Apache-2.0 */
/* Depth first, in the order of the files, from a stack of its own. See expand.h. */
#include "expand.h"

#include "address.h"

#include <base/assert.h>
#include <stdlib.h>
#include <string.h>

static enum err beyond(const char *why, const char **why_out)
{
    *why_out = why;
    return ERR_EXPANSION;
}

static enum err grow(void **row, uint32_t *capacity, uint32_t count, size_t size)
{
    if (count < *capacity)
        return ERR_OK;
    uint32_t wanted = *capacity ? *capacity * 2 : 16;
    void *grown = reallocarray(*row, wanted, size);
    if (!grown)
        return ERR_NO_MEMORY;
    *row = grown;
    *capacity = wanted;
    return ERR_OK;
}

static enum err push(struct expansion *x, const char *address, uint32_t len, const struct pending *from, bool final)
{
    struct pending p = *from;
    enum err e = grow((void **)&x->pending, &x->pending_capacity, x->pending_count, sizeof *x->pending);
    if (!e)
        e = arena_add(&x->work, address, len, &p.at);
    if (e)
        return e;
    p.len = len;
    p.final = final;
    x->pending[x->pending_count++] = p;
    return ERR_OK;
}

/* --- found --- */

/* The place of an address among those found, or where it is to be noted. A place kept from a call that failed may be
 * another's by now: it is looked at. */
static enum err note(struct expansion *x, const char *address, uint32_t len, bool *new_out)
{
    char key[ADDRESS_BYTES_MAX];
    const char *domain;
    uint32_t domain_len;
    memcpy(key, address, len);
    if (address_domain(key, len, &domain, &domain_len))
        address_lower(key + (len - domain_len), domain_len);
    uint32_t *place = keymap_value(&x->seen, key, len);
    if (place && *place < x->found_count) {
        const struct found *f = &x->found[*place];
        *new_out = !address_same(x->text.bytes + f->at, f->len, address, len);
    } else {
        *new_out = true;
    }
    if (place && *new_out)
        *place = x->found_count;
    return place ? ERR_OK : keymap_add(&x->seen, key, len, x->found_count, UINT32_MAX);
}

static enum err emit(struct expansion *x, const struct pending *p, const char **why_out)
{
    const char *address = x->work.bytes + p->at;
    bool new;
    x->reached++;
    enum err e = note(x, address, p->len, &new);
    if (e || !new)
        return e;
    if (x->found_count - x->found_before == ALIAS_EXPANSION_MAX)
        return beyond("it is more addresses than one message may have", why_out);
    struct found f = {.len = p->len};
    e = grow((void **)&x->found, &x->found_capacity, x->found_count, sizeof *x->found);
    if (!e)
        e = arena_add(&x->text, address, p->len, &f.at);
    const struct found *last = x->found_count ? &x->found[x->found_count - 1] : NULL;
    if (!e && p->owner_len > 0 && last && last->owner_len == p->owner_len &&
        memcmp(x->text.bytes + last->owner_at, x->work.bytes + p->owner_at, p->owner_len) == 0) {
        f.owner_at = last->owner_at;
        f.owner_len = p->owner_len;
    } else if (!e && p->owner_len > 0) {
        e = arena_add(&x->text, x->work.bytes + p->owner_at, p->owner_len, &f.owner_at);
        f.owner_len = p->owner_len;
    }
    if (!e)
        x->found[x->found_count++] = f;
    return e;
}

/* --- one name --- */

/* "owner-name" at the domain the name was found in. An address that would be too long leaves the sender as it is. */
static enum err find_owner(struct expansion *x, const struct alias_table *t, struct alias_name name, const char *domain,
                           uint32_t domain_len, struct pending *p)
{
    char owner[ADDRESS_BYTES_MAX] = "owner-";
    bool plain = name.len > 0;
    for (uint32_t i = 0; i < name.len && plain; i++)
        plain = !strchr(" \t\"\\()<>[]:;@,", name.at[i]); /* quoting it would hide the owner from simple programs */
    if (!plain || 7 + name.len + domain_len > sizeof owner || !alias_has_owner(t, name))
        return ERR_OK;
    memcpy(owner + 6, name.at, name.len);
    owner[6 + name.len] = '@';
    memcpy(owner + 7 + name.len, domain, domain_len);
    p->owner_len = 7 + name.len + domain_len;
    return arena_add(&x->work, owner, p->owner_len, &p->owner_at);
}

/* "@other" takes over the local part; everything else is as it was stored. Returns the length; 0: too long. */
static uint32_t target_address(const struct alias_table *t, const struct alias_target *target, const char *address,
                               uint32_t len, char out[ADDRESS_BYTES_MAX])
{
    const char *text = t->text.bytes + target->at;
    const char *domain;
    uint32_t domain_len = 0, local_len = 0;
    if (text[0] == '@')
        local_len = address_domain(address, len, &domain, &domain_len) ? len - domain_len - 1 : len;
    if (local_len + target->len > ADDRESS_BYTES_MAX)
        return 0;
    memcpy(out, address, local_len);
    memcpy(out + local_len, text, target->len);
    return local_len + target->len;
}

static enum err push_targets(struct expansion *x, const struct alias_table *t, const struct alias_list *list,
                             const char *key, uint32_t key_len, const char *address, const struct pending *from,
                             const char **why_out)
{
    char target[ADDRESS_BYTES_MAX], target_key[ALIAS_KEY_BYTES];
    for (uint32_t i = list->count; i-- > 0;) { /* the first ends on top */
        const struct alias_target *to = &t->targets[list->first + i];
        uint32_t len = target_address(t, to, address, from->len, target);
        uint32_t n = len ? alias_key(t, target, len, target_key) : 0;
        if (n == 0)
            return beyond("an address in it is too long", why_out);
        bool itself = n == key_len && memcmp(key, target_key, n) == 0; /* "a: a, b": the mailbox a, and b */
        enum err e = push(x, target, len, from, to->final || itself);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err expand_one(struct expansion *x, const struct alias_table *t, struct pending p, bool keep_sender,
                           const char **why_out)
{
    char key[ALIAS_KEY_BYTES], address[ADDRESS_BYTES_MAX];
    struct alias_name name;
    const char *own = x->work.bytes + p.at;
    uint32_t key_len = alias_key(t, own, p.len, key);
    const struct alias_list *list = p.final || key_len == 0 ? NULL : alias_find(t, key, key_len, &name);
    if (!list)
        return emit(x, &p, why_out);
    memcpy(address, own, p.len); /* the row it lies in may move */
    enum err e = keymap_add(&x->names, key, key_len, 0, UINT32_MAX);
    if (e == ERR_EXISTS)
        return ERR_OK; /* EXP-2 */
    if (!e && ++p.depth > ALIAS_DEPTH_MAX)
        return beyond("aliases of aliases are nested too deep", why_out);
    if (!e && list->count > ALIAS_STEPS_MAX - x->steps - x->pending_count)
        return beyond("it takes too many steps", why_out);
    const char *at = memrchr(key, '@', key_len);
    if (!e && !keep_sender)
        e = find_owner(x, t, name, at + 1, key_len - (uint32_t)(at + 1 - key), &p);
    return e ? e : push_targets(x, t, list, key, key_len, address, &p, why_out);
}

enum err expand(struct expansion *x, const struct alias_table *t, const char *address, uint32_t len, bool keep_sender,
                const char **why_out)
{
    uint32_t text_before = x->text.used;
    ASSERT(len > 0 && len <= ADDRESS_BYTES_MAX);
    x->found_before = x->found_count;
    x->work.used = x->pending_count = x->steps = x->reached = 0;
    keymap_clear(&x->names);
    enum err e = push(x, address, len, &(struct pending){0}, false);
    while (!e && x->pending_count > 0) {
        x->steps++;
        e = expand_one(x, t, x->pending[--x->pending_count], keep_sender, why_out);
    }
    if (!e && x->reached == 0)
        e = beyond("it goes in a circle and reaches nobody", why_out);
    if (e) { /* EXP-3; what `seen` remembers of them is known to be stale by its place */
        x->found_count = x->found_before;
        x->text.used = text_before;
    }
    return e;
}

void expansion_free(struct expansion *x)
{
    free(x->found);
    free(x->pending);
    free(x->text.bytes);
    free(x->work.bytes);
    keymap_free(&x->seen);
    keymap_free(&x->names);
    *x = (struct expansion){0};
}
