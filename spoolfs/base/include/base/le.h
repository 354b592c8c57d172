/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian wrapper types for disk and wire structures: alignment 1, never read as plain integers. */
#ifndef BASE_LE_H
#define BASE_LE_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "le.h assumes a little-endian host; add byte swaps here, nowhere else"
#endif

struct le16 { uint8_t b[2]; };
struct le32 { uint8_t b[4]; };
struct le64 { uint8_t b[8]; };

static inline uint16_t le16_get(struct le16 v) { uint16_t x; memcpy(&x, v.b, 2); return x; }
static inline uint32_t le32_get(struct le32 v) { uint32_t x; memcpy(&x, v.b, 4); return x; }
static inline uint64_t le64_get(struct le64 v) { uint64_t x; memcpy(&x, v.b, 8); return x; }
static inline struct le16 le16_of(uint16_t x) { struct le16 v; memcpy(v.b, &x, 2); return v; }
static inline struct le32 le32_of(uint32_t x) { struct le32 v; memcpy(v.b, &x, 4); return v; }
static inline struct le64 le64_of(uint64_t x) { struct le64 v; memcpy(v.b, &x, 8); return v; }

#endif
