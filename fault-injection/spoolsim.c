/* SPDX-License-Identifier: Apache-2.0 */
/* spoolsim: seeds in, verdicts out. Every seed runs twice and must leave the same trace; a seed that fails prints the
 * one command that replays it. Exit code: 0 all seeds held and what was required was met, 1 not, 2 usage. */
#include "jobs.h"
#include "sim_relay.h"
#include "world.h"

#include <base/assert.h>
#include <base/planted.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPS_DEFAULT 2000u
#define SHORT_ONE_IN 50u  /* a cruel seed now and then fills its pool so that its slots hardly come back (docs/design/0016) */
#define SEED_SECONDS 600u /* of the real clock: nothing a worker does takes a hundredth of that */
#ifdef IRONSPOOL_SMALL
#define MEASURED true
#else
#define MEASURED false    /* slots of a megabyte: a run that uses each of them six times takes minutes */
#endif

struct options {
    uint64_t seed, seeds, list_from;
    uint32_t ops, seconds, jobs, without;
    enum plan_level level;
    bool mixed, verbose, once, required, halves, traces;
    const char *program;
};

/* What a seed's world had not got before: to replay a seed of then. */
enum without {
    WITHOUT_INDEX = 1, WITHOUT_SCHEDULER = 2, WITHOUT_HALVES = 4, WITHOUT_DEPARTURES = 8, WITHOUT_DOMAINS = 16, WITHOUT_DEATHS = 32
};

struct totals { /* every field is a uint64_t */
    uint64_t seeds, ops, power_cuts, kills, virtual_ns, faults[SIM_FAULT_COUNT], reads, writes;
    struct world_counts counts;
};

struct answer {
    bool held, once;
    uint64_t traces[2];
    char failure[512];
    struct totals totals;
};

struct run { struct options o; struct totals totals; uint64_t failed; };

static void add_words(void *to, const void *from, size_t bytes)
{
    uint64_t *t = to;
    const uint64_t *f = from;
    for (size_t i = 0; i < bytes / sizeof *t; i++)
        t[i] += f[i];
}

static void add_counts(struct totals *t, const struct world *w)
{
    const struct sim_counts *s = sim_io_counts(w->sim);
    t->seeds++;
    t->ops += s->ops;
    t->reads += s->reads;
    t->writes += s->writes;
    t->power_cuts += s->power_cuts;
    t->kills += s->kills;
    t->virtual_ns += sim_io_now(w->sim);
    add_words(t->faults, s->faults, sizeof t->faults);
    add_words(&t->counts, &w->counts, sizeof t->counts);
}

static enum plan_level level_of(const struct options *o, uint64_t seed)
{
    return !o->mixed ? o->level : seed % 2 ? PLAN_REALISTIC : PLAN_CRUEL;
}

/* The first run of a seed is the one that is counted and listed. */
static uint64_t run_once(const struct options *o, uint64_t seed, bool first, struct answer *a)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    struct plan plan;
    enum plan_level level = level_of(o, seed);
    plan_make(&plan, seed, level, o->ops ? o->ops : OPS_DEFAULT);
    plan.measured = MEASURED && o->ops == 0 && (level == PLAN_REALISTIC || level == PLAN_CRUEL);
    plan.index_kept = plan.index_kept && !(o->without & WITHOUT_INDEX);
    if (o->halves)
        plan_halves(&plan, true);
    plan.halves_percent = o->without & WITHOUT_HALVES ? 0 : plan.halves_percent;
    plan.departure_percent = o->without & WITHOUT_DEPARTURES ? 0 : plan.departure_percent;
    plan.names_domain = plan.names_domain && !(o->without & WITHOUT_DOMAINS);
    plan.gives_up = plan.gives_up && !(o->without & WITHOUT_DEATHS);
    world_make(w, &plan);
    w->scheduler = plan.scheduled && !(o->without & WITHOUT_SCHEDULER) ? &sim_relay_ops : NULL;
    w->verbose = o->verbose && first;
    w->list_from = o->list_from;
    bool held = world_run(w);
    uint64_t trace = sim_io_trace(w->sim);
    if (first) {
        a->held = held;
        memcpy(a->failure, w->failure, sizeof a->failure);
        add_counts(&a->totals, w);
    }
    world_free(w);
    free(w);
    return trace;
}

static void run_seed(void *owner, uint64_t seed, void *answer)
{
    const struct options *o = &((struct run *)owner)->o;
    struct answer *a = answer;
    a->once = o->once;
    a->traces[0] = run_once(o, seed, true, a);
    a->traces[1] = o->once ? a->traces[0] : run_once(o, seed, false, a);
}

static const char *const without_words[] = /* in the order of enum without */
    {"index", "scheduler", "halves", "departures", "domains", "deaths"};
#define WITHOUT_WORDS (sizeof without_words / sizeof without_words[0])

static void print_without(uint32_t mask)
{
    for (uint32_t i = 0; i < WITHOUT_WORDS; i++)
        if (mask & (1u << i))
            printf(" --without %s", without_words[i]);
}

static void on_answer(void *owner, uint64_t seed, const void *answer, const char *how)
{
    struct run *r = owner;
    const struct answer *a = answer;
    unsigned long long n = seed;
    if (a)
        add_words(&r->totals, &a->totals, sizeof r->totals);
    if (a && a->held && a->traces[0] == a->traces[1]) {
        if (r->o.seeds == 1 || r->o.traces)
            printf("seed %llu: held, trace %016llx\n", n, (unsigned long long)a->traces[0]);
        return;
    }
    r->failed++;
    if (!a)
        printf("seed %llu FAILED %s\n", n, how);
    else if (!a->held)
        printf("seed %llu FAILED %s\n", n, a->failure);
    if (a && a->traces[0] != a->traces[1])
        printf("seed %llu is not deterministic: traces %016llx and %016llx\n", n, (unsigned long long)a->traces[0],
               (unsigned long long)a->traces[1]);
    printf("replay: %s --seed %llu --faults %s", r->o.program, n, plan_level_word(level_of(&r->o, seed)));
    if (r->o.ops)
        printf(" --ops %u", r->o.ops);
    print_without(r->o.without);
    if (r->o.halves)
        printf(" --halves");
    printf(" --verbose\n");
    fflush(stdout);
}

static void run_here(struct run *r)
{
    static struct answer answer;
    time_t begin = time(NULL); /* of the real clock: how many seeds fit, never what happens in one */
    for (uint64_t i = 0; i < r->o.seeds; i++) {
        if (r->o.seconds && time(NULL) - begin >= (time_t)r->o.seconds)
            break;
        answer = (struct answer){0};
        run_seed(r, r->o.seed + i, &answer);
        on_answer(r, r->o.seed + i, &answer, NULL);
    }
}

static bool run_jobs(struct run *r)
{
    struct jobs jobs = {.first = r->o.seed, .count = r->o.seeds, .workers = r->o.jobs, .seed_seconds = SEED_SECONDS,
                        .stop_after = r->o.seconds, .answer_bytes = sizeof(struct answer), .owner = r, .run = run_seed,
                        .answered = on_answer};
    uint64_t begun;
    return jobs_run(&jobs, &begun);
}

static void print_counts(const struct totals *t)
{
    const struct world_counts *c = &t->counts;
#define N(x) (unsigned long long)(x)
    printf("seeds %llu (short of the measure %llu), I/O operations %llu (%llu reads, %llu writes), virtual hours %.2f\n", N(t->seeds),
           N(t->counts.short_of_measure), N(t->ops),
           N(t->reads), N(t->writes), (double)t->virtual_ns / 3.6e12);
    printf("appends %llu (%llu large), acknowledged %llu, visits %llu, retired %llu, marks %llu, states %llu, bounces %llu\n",
           N(c->appends), N(c->large), N(c->acked), N(c->visits), N(c->retires), N(c->marks), N(c->states), N(c->bounces));
    printf("mounts %llu, clean stops %llu, crashes %llu (power cuts %llu, kills %llu), crashes inside recovery %llu, eras %llu\n",
           N(c->mounts), N(c->unmounts), N(t->power_cuts + t->kills), N(t->power_cuts), N(t->kills), N(c->crashes_in_mount),
           N(c->eras));
    printf("audits %llu, messages audited %llu, segments compacted %llu, hedges %llu, frames %llu, slots used %llu, used again %llu, "
           "runs given up beyond redundancy %llu\n",
           N(c->audits), N(c->messages_audited), N(c->compacted), N(c->hedges), N(c->frames), N(c->slots_used),
           N(c->slots_reused), N(c->given_up));
    printf("members put in %llu, replaced %llu, taken out %llu, spares called up %llu\n", N(c->joined), N(c->replaced),
           N(c->taken_out), N(c->spares));
    printf("results of the real scheduler %llu\n", N(c->scheduled));
    printf("halves without room to be mounted alone %llu; pools that bad places left no room to be whole %llu, nor for results %llu\n",
           N(c->halves_refused), N(c->cramped), N(c->worn_out));
    printf("blocks spoilt on every image: messages reported lost by id %llu; on one image here and another there: records read "
           "all the same %llu\n", N(c->lost_by_id), N(c->salvaged));
    printf("met:");
#define X(counter, text) printf(" " #counter " %llu", N(c->counter));
#include "measure.def"
#undef X
    putchar('\n');
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

/* What this run had to meet and did not. */
static uint32_t print_missing(const struct totals *t)
{
    uint32_t missing = 0;
    if (t->counts.short_of_measure * SHORT_ONE_IN > t->seeds) {
        printf("MISSING: more than one seed in %u fell short of the measure\n", SHORT_ONE_IN);
        missing++;
    }
#define X(counter, text)                                                                                                 \
    if (t->counts.counter == 0) {                                                                                        \
        printf("MISSING: %s (" #counter ")\n", text);                                                                    \
        missing++;                                                                                                       \
    }
#include "measure.def"
#undef X
    for (enum sim_fault f = SIM_FAULT_none + 1; f < SIM_FAULT_COUNT; f++)
        if (t->faults[f] == 0) {
            printf("MISSING: the fault %s: %s\n", sim_fault_word(f), sim_fault_text(f));
            missing++;
        }
    return missing;
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
    fprintf(stderr,
            "usage: spoolsim [--seed N] [--seeds COUNT] [--faults none|realistic|cruel|beyond|mixed] [--ops N] [--jobs N]\n"
            "                [--seconds S] [--once] [--require] [--verbose] [--list-from OP] [--planted NAME|list]\n"
            "                [--without index,scheduler,halves,departures,domains,deaths] [--halves] [--traces]\n"
            "--faults mixed: odd seeds are realistic, even ones cruel\n"
            "--ops: so many actions; without it a seed of realistic or cruel goes on until it has met the measure\n"
            "--jobs: in so many processes; --seconds: begin no seed after S seconds; --once: do not run each seed twice\n"
            "--require: fail when the run as a whole has not met every counter and every kind of fault\n"
            "--list-from: with --verbose, list the operations from this one on\n"
            "--without: a world that has not got this: an index that is kept from mount to mount, the relay's scheduler,\n"
            "           pools cut in halves that are mounted without each other, and then put together, members that leave\n"
            "           a running pool; at the end, a failure domain that is named later, members that die and are given up\n"
            "--halves: every pool is cut, not one in three\n"
            "--traces: prints the digest of every seed's trace, to compare two builds\n"
            "--planted: with this known bug (build option IRONSPOOL_PLANTED)\n");
    return 2;
}

static bool parse_faults(const char *word, struct options *o)
{
    o->mixed = strcmp(word, "mixed") == 0;
    return o->mixed || plan_level_parse(word, &o->level);
}

static bool parse_without(const char *words, struct options *o)
{
    char list[64];
    snprintf(list, sizeof list, "%s", words);
    for (char *rest = NULL, *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        uint32_t i = 0;
        while (i < WITHOUT_WORDS && strcmp(word, without_words[i]) != 0)
            i++;
        if (i == WITHOUT_WORDS)
            return false;
        o->without |= 1u << i;
    }
    return true;
}

/* A whole number and nothing else: a seed that was mistyped would run as another one. */
static bool parse_count(const char *word, uint64_t most, uint64_t *n_out)
{
    char *end;
    errno = 0;
    *n_out = strtoull(word, &end, 0);
    bool good = isdigit((unsigned char)word[0]) && !*end && !errno && *n_out <= most;
    if (!good)
        fprintf(stderr, "spoolsim: \"%s\" is not a whole number that can be meant here\n", word);
    return good;
}

static bool parse_u32(const char *word, uint32_t *n_out)
{
    uint64_t n;
    if (!parse_count(word, UINT32_MAX, &n))
        return false;
    *n_out = (uint32_t)n;
    return true;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'},    {"seeds", required_argument, NULL, 'n'},
        {"ops", required_argument, NULL, 'o'},     {"faults", required_argument, NULL, 'f'},
        {"seconds", required_argument, NULL, 't'}, {"jobs", required_argument, NULL, 'j'},
        {"verbose", no_argument, NULL, 'v'},       {"once", no_argument, NULL, '1'},
        {"require", no_argument, NULL, 'r'},       {"list-from", required_argument, NULL, 'l'},
        {"planted", required_argument, NULL, 'p'}, {"without", required_argument, NULL, 'w'},
        {"halves", no_argument, NULL, 'h'},        {"traces", no_argument, NULL, 'd'},
        {NULL, 0, NULL, 0}};
    bool ok = true;
    int c;
    while (ok && (c = getopt_long(argc, argv, "", longs, NULL)) != -1)
        switch (c) {
        case 's': ok = parse_count(optarg, UINT64_MAX, &o->seed); break;
        case 'n': ok = parse_count(optarg, UINT64_MAX, &o->seeds); break;
        case 'o': ok = parse_u32(optarg, &o->ops); break;
        case 't': ok = parse_u32(optarg, &o->seconds); break;
        case 'j': ok = parse_u32(optarg, &o->jobs); break;
        case 'v': o->verbose = true; break;
        case 'h': o->halves = true; break;
        case 'd': o->traces = true; break;
        case '1': o->once = true; break;
        case 'r': o->required = true; break;
        case 'l': ok = parse_count(optarg, UINT64_MAX, &o->list_from); break;
        case 'p': ok = plant(optarg); break;
        case 'w': ok = parse_without(optarg, o); break;
        case 'f': ok = parse_faults(optarg, o); break;
        default: return false;
        }
    return ok && optind == argc && o->seeds > 0 && o->jobs <= JOBS_MAX;
}

int main(int argc, char **argv)
{
    static struct run r;
    r.o = (struct options){.list_from = UINT64_MAX, .seed = 1, .seeds = 1, .level = PLAN_REALISTIC,
                           .program = program_invocation_short_name};
    if (!parse(argc, argv, &r.o))
        return usage();
    /* An engine's large tables come from the kernel as zeros that nobody has to write; glibc would learn to keep their memory,
     * and then a mount writes ten megabytes of them anew. */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20); /* the next world wants it again */
    setvbuf(stdout, NULL, _IOLBF, 0); /* a run that aborts keeps its listing */
    if (r.o.jobs == 0) {
        run_here(&r);
    } else if (!run_jobs(&r)) {
        perror("spoolsim: a worker cannot be started");
        return 1;
    }
    print_counts(&r.totals);
    uint32_t missing = r.o.required ? print_missing(&r.totals) : 0;
    if (r.failed)
        printf("%llu of %llu seeds FAILED\n", (unsigned long long)r.failed,
               (unsigned long long)r.totals.seeds);
    return r.failed || missing ? 1 : 0;
}
