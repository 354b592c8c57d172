/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the store in an LMDB file; the only door to lmdb.h. One thread, one transaction at a time, so LMDB's own lock
 * file is not used: a lock on the directory keeps other processes out (index_thread.c).
 *
 *  LMDB-1  never NOSYNC, never WRITEMAP: a commit is on stable storage but for the last meta page, and a power cut
 *          leaves the state of some commit.
 *  LMDB-2  the map grows between transactions only.
 *  LMDB-3  a failed sync is damage: what the kernel dropped then cannot be known. LMDB says EIO for a short write, too,
 *          which a full file system causes: a descriptor of our own, which hears of every failed write-back once,
 *          tells the two apart.
 *  LMDB-4  keys ascend: a leaf that is whole but of another place shows by its order. */
#include "index_lmdb.h"

#include <base/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <spoolfs/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES_MIN ((size_t)16 << 20) /* address space; the file grows as pages are written */
#define MAP_BYTES_MAX ((size_t)1 << 44)
#define LMDB_FLAGS (MDB_NOSUBDIR | MDB_NOMETASYNC | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOLOCK)

struct store_lmdb {
    struct store store;
    MDB_env *env;
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_dbi dbi;
    bool writing, have_dbi;
    int witness;               /* LMDB-3 */
    struct { uint8_t b[STORE_KEY_BYTES_MAX]; size_t len; } last; /* LMDB-4 */
    char path[STORE_PATH_BYTES];
};

static struct store_lmdb *lmdb(struct store *s)
{
    return (struct store_lmdb *)(void *)s;
}

static enum err verdict(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return ERR_OK;
    case MDB_NOTFOUND:
        return ERR_NOT_FOUND;
    case MDB_MAP_FULL:
        return ERR_FULL;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_MEMBER_FULL;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case MDB_TXN_FULL:
    case MDB_MAP_RESIZED:
    case MDB_PANIC:
        return ERR_SYSTEM;
    case EIO:
        return ERR_IO;
    default:
        return rc < 0 ? ERR_CORRUPT : ERR_SYSTEM;
    }
}

static MDB_val val_of(struct bytes b)
{
    return (MDB_val){.mv_size = b.len, .mv_data = (void *)(uintptr_t)b.at};
}

/* --- the environment --- */

static void env_close(struct store_lmdb *m)
{
    if (m->env)
        mdb_env_close(m->env);
    if (m->witness > 0)
        close(m->witness);
    m->env = NULL;
    m->witness = 0;
    m->have_dbi = false;
}

/* Of an index up to this size (400,000 messages) the kernel is asked to read all at once, at opening and before a list:
 * page by page as LMDB touches them a cold list of 100,000 takes seconds. A larger one must not push everything else
 * out of memory. */
#define SOON_BYTES_MAX (256 * MIB)
#define SOON_STEP_BYTES (128 * KIB) /* of one call the kernel reads no more than the device's readahead, by default this */

static void lmdb_soon(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    struct stat st;
    if (!m->env || fstat(m->witness, &st) != 0 || (uint64_t)st.st_size > SOON_BYTES_MAX)
        return;
    for (off_t at = 0; at < st.st_size; at += (off_t)SOON_STEP_BYTES)
        (void)posix_fadvise(m->witness, at, (off_t)SOON_STEP_BYTES, POSIX_FADV_WILLNEED); /* a wish */
}

static int env_open(struct store_lmdb *m, unsigned extra)
{
    struct stat st;
    size_t map = MAP_BYTES_MIN;
    if (stat(m->path, &st) == 0)
        while (map < (size_t)st.st_size * 2 && map < MAP_BYTES_MAX)
            map *= 2;
    int rc = mdb_env_create(&m->env);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_mapsize(m->env, map);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_open(m->env, m->path, LMDB_FLAGS | extra, 0600);
    if (rc == MDB_SUCCESS && (m->witness = open(m->path, O_RDONLY | O_CLOEXEC)) < 0)
        rc = errno;
    if (rc != MDB_SUCCESS)
        env_close(m);
    else
        lmdb_soon(&m->store);
    return rc;
}

/* LMDB-3 */
static enum err written(struct store_lmdb *m, int rc)
{
    enum err e = verdict(rc);
    if (e != ERR_IO)
        return e;
    return fdatasync(m->witness) == 0 ? ERR_MEMBER_FULL : ERR_CORRUPT;
}

static enum err lmdb_begin(struct store *s, bool write)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(!m->txn);
    int rc = m->env ? MDB_SUCCESS : env_open(m, 0);
    if (rc == MDB_SUCCESS)
        rc = mdb_txn_begin(m->env, NULL, write ? 0 : MDB_RDONLY, &m->txn);
    if (rc == MDB_PANIC) { /* a meta page could not be written: LMDB wants to be opened anew */
        env_close(m);
        rc = env_open(m, 0);
        if (rc == MDB_SUCCESS)
            rc = mdb_txn_begin(m->env, NULL, write ? 0 : MDB_RDONLY, &m->txn);
    }
    if (rc == MDB_SUCCESS && !m->have_dbi) {
        rc = mdb_dbi_open(m->txn, NULL, 0, &m->dbi);
        m->have_dbi = rc == MDB_SUCCESS;
    }
    if (rc == MDB_SUCCESS)
        rc = mdb_cursor_open(m->txn, m->dbi, &m->cursor);
    if (rc != MDB_SUCCESS && m->txn) {
        mdb_txn_abort(m->txn);
        m->txn = NULL;
    }
    m->writing = write;
    return verdict(rc);
}

static void cursor_close(struct store_lmdb *m)
{
    if (m->cursor)
        mdb_cursor_close(m->cursor);
    m->cursor = NULL;
}

static enum err lmdb_commit(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(m->txn && m->writing);
    cursor_close(m);
    int rc = mdb_txn_commit(m->txn);
    m->txn = NULL;
    return written(m, rc);
}

static void lmdb_abort(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(m->txn);
    cursor_close(m);
    mdb_txn_abort(m->txn);
    m->txn = NULL;
}

/* --- data --- */

static enum err lmdb_get(struct store *s, struct bytes key, struct bytes *value_out)
{
    struct store_lmdb *m = lmdb(s);
    MDB_val k = val_of(key), v;
    int rc = mdb_get(m->txn, m->dbi, &k, &v);
    if (rc == MDB_SUCCESS)
        *value_out = (struct bytes){v.mv_data, v.mv_size};
    return verdict(rc);
}

static enum err lmdb_put(struct store *s, struct bytes key, struct bytes value)
{
    struct store_lmdb *m = lmdb(s);
    MDB_val k = val_of(key), v = val_of(value);
    return verdict(mdb_put(m->txn, m->dbi, &k, &v, 0));
}

static enum err lmdb_del(struct store *s, struct bytes key)
{
    struct store_lmdb *m = lmdb(s);
    MDB_val k = val_of(key);
    return verdict(mdb_del(m->txn, m->dbi, &k, NULL));
}

static bool behind_last(const struct store_lmdb *m, const MDB_val *k)
{
    size_t both = k->mv_size < m->last.len ? k->mv_size : m->last.len;
    int c = memcmp(k->mv_data, m->last.b, both);
    return c > 0 || (c == 0 && k->mv_size > m->last.len);
}

static enum err cursor_get(struct store_lmdb *m, MDB_val *k, MDB_cursor_op op, struct bytes *key_out,
                           struct bytes *value_out)
{
    MDB_val v;
    int rc = mdb_cursor_get(m->cursor, k, &v, op);
    if (rc != MDB_SUCCESS)
        return verdict(rc);
    *key_out = (struct bytes){k->mv_data, k->mv_size};
    *value_out = (struct bytes){v.mv_data, v.mv_size};
    if (key_out->len > STORE_KEY_BYTES_MAX || (op == MDB_NEXT && !behind_last(m, k)))
        return ERR_CORRUPT;
    memcpy(m->last.b, k->mv_data, k->mv_size);
    m->last.len = k->mv_size;
    return ERR_OK;
}

static enum err lmdb_seek(struct store *s, struct bytes key, struct bytes *key_out, struct bytes *value_out)
{
    MDB_val k = val_of(key);
    return cursor_get(lmdb(s), &k, MDB_SET_RANGE, key_out, value_out);
}

static enum err lmdb_next(struct store *s, struct bytes *key_out, struct bytes *value_out)
{
    MDB_val k;
    return cursor_get(lmdb(s), &k, MDB_NEXT, key_out, value_out);
}

static enum err lmdb_clear(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(m->writing);
    return verdict(mdb_drop(m->txn, m->dbi, 0));
}

static enum err lmdb_sync(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(!m->txn);
    return m->env ? written(m, mdb_env_sync(m->env, 1)) : ERR_SYSTEM;
}

/* LMDB-2. Doubles. */
static enum err lmdb_grow(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    MDB_envinfo info;
    ASSERT(!m->txn);
    if (!m->env || mdb_env_info(m->env, &info) != MDB_SUCCESS || info.me_mapsize >= MAP_BYTES_MAX)
        return ERR_MEMBER_FULL;
    return verdict(mdb_env_set_mapsize(m->env, info.me_mapsize * 2));
}

static void lmdb_close(struct store *s)
{
    struct store_lmdb *m = lmdb(s);
    ASSERT(!m->txn);
    env_close(m);
    free(m);
}

static const struct store_ops lmdb_ops = {
    .begin = lmdb_begin, .commit = lmdb_commit, .abort = lmdb_abort, .get = lmdb_get, .put = lmdb_put,
    .del = lmdb_del, .seek = lmdb_seek, .next = lmdb_next, .clear = lmdb_clear, .sync = lmdb_sync, .grow = lmdb_grow,
    .soon = lmdb_soon, .close = lmdb_close,
};

static struct store_lmdb *lmdb_new(const char *directory)
{
    struct store_lmdb *m = calloc(1, sizeof *m);
    if (m) {
        m->store.ops = &lmdb_ops;
        snprintf(m->path, sizeof m->path, "%s/%s", directory, STORE_FILE);
    }
    return m;
}

enum err store_lmdb_open(const char *directory, struct store **store_out)
{
    struct store_lmdb *m = lmdb_new(directory);
    if (!m)
        return ERR_NO_MEMORY;
    int rc = env_open(m, 0);
    if (rc != MDB_SUCCESS) {
        free(m);
        return verdict(rc);
    }
    *store_out = &m->store;
    return ERR_OK;
}

/* --- the trial, in a process that may die of it --- */

/* The pages LMDB takes for free must be pages of the file. */
static enum err try_free_list(MDB_txn *txn, size_t pages)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, 0, &cursor);
    if (rc != MDB_SUCCESS)
        return verdict(rc);
    enum err e = ERR_OK;
    while (e == ERR_OK && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == MDB_SUCCESS) {
        size_t count = 0, page = 0, before = pages;
        if (k.mv_size != sizeof(size_t) || v.mv_size < sizeof count)
            e = ERR_CORRUPT;
        else
            memcpy(&count, v.mv_data, sizeof count);
        if (e == ERR_OK && count > v.mv_size / sizeof page - 1)
            e = ERR_CORRUPT;
        for (size_t i = 1; e == ERR_OK && i <= count; i++) {
            memcpy(&page, (const uint8_t *)v.mv_data + i * sizeof page, sizeof page);
            if (page < 2 || page >= before)
                e = ERR_CORRUPT; /* they descend */
            before = page;
        }
    }
    mdb_cursor_close(cursor);
    return e == ERR_OK && rc != MDB_NOTFOUND ? ERR_CORRUPT : e;
}

static enum err try_rows(struct store_lmdb *m, size_t entries,
                         bool (*look)(struct bytes key, struct bytes value, void *arg), void *arg)
{
    struct bytes key, value;
    MDB_val k;
    enum err e = cursor_get(m, &k, MDB_FIRST, &key, &value);
    size_t count = 0;
    for (; e == ERR_OK; count++) {
        if (!look(key, value, arg))
            return ERR_OK;
        e = cursor_get(m, &k, MDB_NEXT, &key, &value);
    }
    if (e == ERR_NOT_FOUND)
        return count == entries ? ERR_OK : ERR_CORRUPT;
    return e;
}

enum err store_lmdb_try(const char *directory, bool (*look)(struct bytes key, struct bytes value, void *arg), void *arg)
{
    struct store_lmdb *m = lmdb_new(directory);
    struct stat st;
    MDB_envinfo info;
    MDB_stat stat_of;
    if (!m)
        return ERR_NO_MEMORY;
    if (lstat(m->path, &st) != 0)
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM;
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return ERR_CORRUPT;
    if (env_open(m, MDB_RDONLY) != MDB_SUCCESS || mdb_env_info(m->env, &info) != MDB_SUCCESS ||
        mdb_env_stat(m->env, &stat_of) != MDB_SUCCESS)
        return ERR_CORRUPT;
    if ((uint64_t)st.st_size / stat_of.ms_psize < (uint64_t)info.me_last_pgno + 1)
        return ERR_CORRUPT; /* shorter than it says: reading it would be SIGBUS */
    enum err e = lmdb_begin(&m->store, false);
    if (e == ERR_OK)
        e = try_free_list(m->txn, info.me_last_pgno + 1);
    return e == ERR_OK ? try_rows(m, stat_of.ms_entries, look, arg) : e; /* nothing is freed: the process ends */
}
