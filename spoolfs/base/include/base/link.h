/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list. A head is a struct link that points at itself when empty.
 * A link that is in no list is {NULL, NULL}; link_remove leaves it so. */
#ifndef BASE_LINK_H
#define BASE_LINK_H

#include <base/assert.h>
#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next;
    struct link *prev;
};

#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void link_init(struct link *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool link_empty(const struct link *head)
{
    return head->next == head;
}

static inline bool link_linked(const struct link *l)
{
    return l->next != NULL;
}

static inline void link_push(struct link *head, struct link *l) /* at the tail */
{
    ASSERT(l->next == NULL);
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

static inline void link_push_front(struct link *head, struct link *l)
{
    ASSERT(l->next == NULL);
    l->next = head->next;
    l->prev = head;
    head->next->prev = l;
    head->next = l;
}

static inline void link_remove(struct link *l)
{
    ASSERT(l->next != NULL);
    l->prev->next = l->next;
    l->next->prev = l->prev;
    l->next = NULL;
    l->prev = NULL;
}

static inline struct link *link_pop(struct link *head) /* from the front; NULL when empty */
{
    struct link *l = head->next;
    if (l == head)
        return NULL;
    link_remove(l);
    return l;
}

#define LINK_EACH(l, head) for (struct link *l = (head)->next; l != (head); l = l->next)
#define LINK_EACH_SAFE(l, n, head) \
    for (struct link *l = (head)->next, *n = l->next; l != (head); l = n, n = l->next)

#endif
