/* SPDX-License-Identifier: Apache-2.0 */
/* The fault kinds of faults.def, and what they do to one operation on a simulated disk. */
#ifndef FAULTS_H
#define FAULTS_H

#include "sim_disk.h"

#include <spoolfs/io.h>

enum sim_fault {
#define X(name, word, where, text) SIM_FAULT_##name,
#include "faults.def"
#undef X
    SIM_FAULT_COUNT
};
const char *sim_fault_word(enum sim_fault fault);
const char *sim_fault_text(enum sim_fault fault);

/* What becomes of one operation, decided when it is submitted. */
struct sim_fate {
    enum sim_fault fault;
    uint64_t elsewhere;     /* misdirected: where to; block aligned */
    uint64_t delay_ns;      /* late: on top of its latency */
};

/* Carries one operation out on the disk, with its fate. Flushes cover writes up to `mark`. */
enum err fault_carry_out(struct sim_disk *disk, const struct io_op *op, const struct sim_fate *fate, uint64_t mark,
                         enum io_durable_by by, struct prng *prng) MUST_CHECK;

#endif
