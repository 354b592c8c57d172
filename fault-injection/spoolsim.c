/* SPDX-License-Identifier: Apache-2.0 */
/* spoolsim: seeds in, verdicts out. Every seed runs twice and must leave the same trace; a seed that fails prints the
 * one command that replays it. Exit code: 0 all seeds held, 1 one failed, 2 usage. */
#include "world.h"

#include <base/assert.h>
#include <base/planted.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPS_DEFAULT 2000u

struct options {
    uint64_t seed, seeds, list_from;
    uint32_t ops, seconds;
    enum plan_level level;
    bool verbose, once;
};

struct totals {
    uint64_t seeds, ops, power_cuts, kills, virtual_ns, faults[SIM_FAULT_COUNT], reads, writes;
    struct world_counts counts;
};

struct verdict {
    bool held;
    uint64_t trace;
    char failure[512];
};

static void add_counts(struct totals *t, const struct world *w)
{
    const struct sim_counts *s = sim_io_counts(w->sim);
    t->ops += s->ops;
    t->reads += s->reads;
    t->writes += s->writes;
    t->power_cuts += s->power_cuts;
    t->kills += s->kills;
    t->virtual_ns += sim_io_now(w->sim);
    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++)
        t->faults[i] += s->faults[i];
    /* every counter is a uint64_t */
    const uint64_t *from = (const uint64_t *)&w->counts;
    uint64_t *to = (uint64_t *)&t->counts;
    for (size_t i = 0; i < sizeof w->counts / sizeof *from; i++)
        to[i] += from[i];
}

static struct verdict run_once(const struct options *o, uint64_t seed, struct totals *totals)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    plan_make(&plan, seed, o->level, o->ops);
    world_make(w, &plan);
    w->verbose = o->verbose && totals;
    w->list_from = o->list_from;
    struct verdict v = {.held = world_run(w), .trace = sim_io_trace(w->sim)};
    memcpy(v.failure, w->failure, sizeof v.failure);
    if (totals) {
        totals->seeds++;
        add_counts(totals, w);
    }
    world_free(w);
    free(w);
    return v;
}

static bool run_seed(const struct options *o, uint64_t seed, struct totals *totals)
{
    struct verdict first = run_once(o, seed, totals), second = first;
    if (!o->once)
        second = run_once(o, seed, NULL);
    if (first.held && first.trace == second.trace) {
        if (o->seeds == 1)
            printf("seed %llu: held, trace %016llx\n", (unsigned long long)seed, (unsigned long long)first.trace);
        return true;
    }
    if (!first.held)
        printf("seed %llu FAILED %s\n", (unsigned long long)seed, first.failure);
    if (first.trace != second.trace)
        printf("seed %llu is not deterministic: traces %016llx and %016llx\n", (unsigned long long)seed,
               (unsigned long long)first.trace, (unsigned long long)second.trace);
    printf("replay: spoolsim --seed %llu --faults %s --ops %u --verbose\n", (unsigned long long)seed,
           plan_level_word(o->level), o->ops);
    fflush(stdout);
    return false;
}

static void print_counts(const struct totals *t)
{
    const struct world_counts *c = &t->counts;
#define N(x) (unsigned long long)(x)
    printf("seeds %llu, I/O operations %llu (%llu reads, %llu writes), virtual hours %.2f\n", N(t->seeds), N(t->ops),
           N(t->reads), N(t->writes), (double)t->virtual_ns / 3.6e12);
    printf("appends %llu (%llu large), acknowledged %llu, visits %llu, retired %llu, marks %llu, states %llu, bounces %llu\n",
           N(c->appends), N(c->large), N(c->acked), N(c->visits), N(c->retires), N(c->marks), N(c->states), N(c->bounces));
    printf("mounts %llu, clean stops %llu, power cuts %llu, kills %llu, of these in a mount %llu, eras %llu\n", N(c->mounts),
           N(c->unmounts), N(t->power_cuts), N(t->kills), N(c->crashes_in_mount), N(c->eras));
    printf("audits %llu, messages audited %llu, segments compacted %llu, hedges %llu, frames %llu\n", N(c->audits),
           N(c->messages_audited), N(c->compacted), N(c->hedges), N(c->frames));
    printf("members put in %llu, replaced %llu, taken out %llu, spares called up %llu\n", N(c->joined), N(c->replaced),
           N(c->taken_out), N(c->spares));
    printf("slots used %llu, used again %llu, of these while a member is away %llu; power cuts with an operation of compaction %llu, "
           "rebuild %llu, repair %llu in flight, before the index was complete %llu; runs given up beyond redundancy %llu\n",
           N(c->slots_used), N(c->slots_reused), N(c->reused_while_out), N(c->crashes_in_compaction), N(c->crashes_in_rebuild),
           N(c->crashes_in_repair), N(c->crashes_before_index), N(c->given_up));
    printf("faults:");
    for (enum sim_fault f = SIM_FAULT_none + 1; f < SIM_FAULT_COUNT; f++)
        printf(" %s %llu", sim_fault_word(f), N(t->faults[f]));
    printf("\nrefusals:");
    for (enum err e = ERR_OK + 1; e < ERR_COUNT; e++)
        if (c->refused[e])
            printf(" %s %llu", err_name(e), N(c->refused[e]));
    printf("\nevents:");
    for (enum event_kind e = 0; e < EVENT_COUNT; e++)
        if (c->events[e])
            printf(" %s %llu", event_name(e), N(c->events[e]));
    putchar('\n');
#undef N
}

#ifdef IRONSPOOL_PLANTED
static bool plant(const char *name)
{
    if (strcmp(name, "list") != 0)
        return planted_choose(name);
    for (enum planted_bug b = PLANTED_none + 1; b < PLANTED_COUNT; b++)
        printf("%s\t%s\t%s\n", planted_name(b), planted_verdict(b), planted_text(b));
    exit(0);
}
#else
static bool plant(const char *name)
{
    fprintf(stderr, "spoolsim: no bug \"%s\" in this build: configure it with -DIRONSPOOL_PLANTED=ON\n", name);
    return false;
}
#endif

static int usage(void)
{
    fprintf(stderr, "usage: spoolsim [--seed N] [--seeds COUNT] [--seconds S] [--faults none|realistic|cruel|beyond]\n"
                    "                [--ops N] [--once] [--verbose] [--list-from OP] [--planted NAME|list]\n"
                    "--seconds: stop beginning seeds after S seconds; --once: do not run each seed twice;\n"
                    "--list-from: with --verbose, list the operations from this one on;\n"
                    "--planted: with this known bug (build option IRONSPOOL_PLANTED)\n");
    return 2;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},  {"seeds", required_argument, NULL, 'n'},
        {"ops", required_argument, NULL, 'o'},   {"faults", required_argument, NULL, 'f'},
        {"seconds", required_argument, NULL, 't'}, {"verbose", no_argument, NULL, 'v'},
        {"once", no_argument, NULL, '1'}, {"list-from", required_argument, NULL, 'l'},
        {"planted", required_argument, NULL, 'p'},
              {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
        switch (c) {
        case 's': o->seed = strtoull(optarg, NULL, 0); break;
        case 'n': o->seeds = strtoull(optarg, NULL, 0); break;
        case 'o': o->ops = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 't': o->seconds = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'v': o->verbose = true; break;
        case '1': o->once = true; break;
        case 'l': o->list_from = strtoull(optarg, NULL, 0); break;
        case 'p':
            if (!plant(optarg))
                return false;
            break;
        case 'f':
            if (!plan_level_parse(optarg, &o->level))
                return false;
            break;
        default:
            return false;
        }
    return optind == argc && o->seeds > 0 && o->ops > 0;
}

int main(int argc, char **argv)
{
    struct options o = {.list_from = UINT64_MAX, .seed = 1, .seeds = 1, .ops = OPS_DEFAULT, .level = PLAN_REALISTIC};
    static struct totals totals;
    uint64_t failed = 0;
    if (!parse(argc, argv, &o))
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0); /* a run that aborts keeps its listing */
    time_t begin = time(NULL); /* of the real clock: how many seeds fit, never what happens in one */
    for (uint64_t i = 0; i < o.seeds; i++) {
        if (o.seconds && time(NULL) - begin >= (time_t)o.seconds)
            break;
        failed += !run_seed(&o, o.seed + i, &totals);
    }
    print_counts(&totals);
    if (failed)
        printf("%llu of %llu seeds FAILED\n", (unsigned long long)failed, (unsigned long long)totals.seeds);
    return failed ? 1 : 0;
}
