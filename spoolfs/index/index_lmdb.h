/* SPDX-License-Identifier: Apache-2.0 */
/* What the LMDB store has beyond store.h. */
#ifndef INDEX_INDEX_LMDB_H
#define INDEX_INDEX_LMDB_H

#include "store.h"

#define STORE_FILE "index.mdb"
#define STORE_PATH_BYTES 512u

/* The file `directory`/STORE_FILE, made if missing. */
enum err store_lmdb_open(const char *directory, struct store **store_out) MUST_CHECK;
/* Reads everything LMDB relies on, then rows in order while `look` says so. May crash: only in a process of its own,
 * which then ends. ERR_NOT_FOUND: no file. */
enum err store_lmdb_try(const char *directory, bool (*look)(struct bytes key, struct bytes value, void *arg),
                        void *arg) MUST_CHECK;

#endif
