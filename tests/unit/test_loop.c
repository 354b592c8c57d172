/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: tasks run once at the end of the turn, timers fire in order and may be moved and cleared, watches tell what
 * is ready and nothing else, tasks that feed each other do not starve the sockets. And the log over it (LOG-1, LOG-2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

static struct loop *loop;
static char trail[256];

static void mark(const char *what)
{
    assert_true(strlen(trail) + strlen(what) < sizeof trail);
    strcat(trail, what);
}

static int setup(void **state)
{
    (void)state;
    trail[0] = '\0';
    assert_int_equal(loop_open(&loop), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_close(&loop);
    return 0;
}

static void stop_fired(struct loop_timer *t)
{
    (void)t;
    mark("s");
    loop_stop(loop);
}

static void letter_fired(struct loop_timer *t)
{
    mark(t->owner);
}

static void task_run(struct loop_task *t)
{
    mark(t->owner);
}

static void timers_fire_in_order_and_may_be_moved_or_cleared(void **state)
{
    (void)state;
    struct loop_timer a, b, c, stop;
    loop_timer_init(loop, &a, letter_fired, "a");
    loop_timer_init(loop, &b, letter_fired, "b");
    loop_timer_init(loop, &c, letter_fired, "c");
    loop_timer_init(loop, &stop, stop_fired, NULL);
    loop_timer_set(&a, 30);
    loop_timer_set(&b, 10);
    loop_timer_set(&c, 20);
    loop_timer_set(&a, 1);
    loop_timer_clear(&c);
    loop_timer_set(&stop, 40);
    loop_run(loop);
    assert_string_equal(trail, "abs");
    loop_timer_fini(&a);
    loop_timer_fini(&b);
    loop_timer_fini(&c);
    loop_timer_fini(&stop);
    loop_timer_fini(&stop); /* harmless */
}

static struct loop_task second;

static void first_run(struct loop_task *t)
{
    mark(t->owner);
    loop_defer(loop, &second);
    loop_defer(loop, &second);
}

static void a_task_runs_once_however_often_it_was_deferred(void **state)
{
    (void)state;
    struct loop_timer stop;
    struct loop_task first = {.run = first_run, .owner = "1"}, gone = {.run = task_run, .owner = "x"};
    second = (struct loop_task){.run = task_run, .owner = "2"};
    loop_timer_init(loop, &stop, stop_fired, NULL);
    loop_defer(loop, &first);
    loop_defer(loop, &first);
    loop_defer(loop, &gone);
    loop_defer_cancel(&gone);
    loop_defer_cancel(&gone);
    loop_timer_set(&stop, 5);
    loop_run(loop);
    assert_string_equal(trail, "12s");
    loop_timer_fini(&stop);
}

static void again_run(struct loop_task *t)
{
    loop_defer(loop, t);
}

static void tasks_that_keep_each_other_alive_do_not_starve_the_rest(void **state)
{
    (void)state;
    struct loop_timer stop;
    struct loop_task again = {.run = again_run};
    loop_timer_init(loop, &stop, stop_fired, NULL);
    loop_defer(loop, &again);
    loop_timer_set(&stop, 5);
    loop_run(loop);
    assert_string_equal(trail, "s");
    loop_defer_cancel(&again);
    loop_timer_fini(&stop);
}

static void watch_ready(struct loop_watch *w, bool readable, bool writable)
{
    char byte;
    if (writable) {
        mark("w");
        loop_watch_change(w, true, false);
    }
    if (readable) {
        mark("r");
        if (read(w->fd, &byte, 1) == 0) {
            loop_watch_remove(w);
            loop_stop(loop);
        }
    }
}

static void a_watch_tells_what_is_ready_and_nothing_else(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct loop_watch w = {.fd = fds[0], .ready = watch_ready};
    struct loop_timer stop;
    loop_timer_init(loop, &stop, stop_fired, NULL);
    assert_int_equal(loop_watch_add(loop, &w, false, false), ERR_OK);
    assert_int_equal(write(fds[1], "x", 1), 1);
    loop_timer_set(&stop, 5);
    loop_run(loop);
    assert_string_equal(trail, "s");
    loop_watch_change(&w, false, true);
    loop_timer_set(&stop, 20);
    loop_run(loop);
    assert_string_equal(trail, "swrs");
    close(fds[1]);
    loop_run(loop);
    assert_string_equal(trail, "swrsr");
    close(fds[0]);
    loop_timer_fini(&stop);
}

static void the_clock_stands_still_within_a_turn_and_never_runs_backwards(void **state)
{
    (void)state;
    uint64_t before = loop_now_ms(loop);
    assert_true(before > 0);
    assert_true(loop_wall_ms(loop) > UINT64_C(1500000000000));
    struct loop_timer stop;
    loop_timer_init(loop, &stop, stop_fired, NULL);
    loop_timer_set(&stop, 3);
    loop_run(loop);
    assert_true(loop_now_ms(loop) >= before);
    loop_timer_fini(&stop);
}

/* --- the log --- */

static char *read_back(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    char *text = calloc(1, (size_t)st.st_size + 1);
    assert_non_null(text);
    assert_int_equal(read(fd, text, (size_t)st.st_size), st.st_size);
    close(fd);
    return text;
}

static void a_line_cannot_be_forged(void **state)
{
    (void)state;
    char path[] = "/tmp/ironspool-log-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(log_open(loop, "ironspool", path), ERR_OK);
    char *longer = malloc(3 * LOG_LINE_BYTES);
    assert_non_null(longer);
    memset(longer, 'y', 3 * LOG_LINE_BYTES);
    longer[3 * LOG_LINE_BYTES - 1] = '\0';
    log_line("smtpd", "helo=<%s>", "x>\r\nNov  1 00:00:00 vm evil\xff\x1b");
    log_line("smtpd", "%s", longer);
    log_line("smtpd", "last");
    char *text = read_back(path);
    assert_string_equal(text, ""); /* LOG-2: nothing before the end of the turn */
    free(text);
    struct loop_timer stop;
    loop_timer_init(loop, &stop, stop_fired, NULL);
    loop_timer_set(&stop, 2);
    loop_run(loop);
    loop_timer_fini(&stop);
    text = read_back(path);
    assert_non_null(strstr(text, "helo=<x>\\x0D\\x0ANov  1 00:00:00 vm evil\\xFF\\x1B>\n"));
    unsigned lines = 0;
    for (const char *at = text, *end; (end = strchr(at, '\n')); at = end + 1, lines++) {
        assert_true(end - at < LOG_LINE_BYTES);
        const char *name = strstr(at, " ironspool/smtpd[");
        assert_true(name && name < end);
    }
    assert_int_equal(lines, 3);
    free(text);
    free(longer);
    log_close();
    unlink(path);
}

static void a_stuck_reader_costs_lines_and_not_the_loop(void **state)
{
    (void)state;
    char directory[] = "/tmp/ironspool-log-XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/fifo", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(log_open(loop, "ironspool", path), ERR_OK);
    uint64_t before = log_lines_dropped();
    for (int i = 0; i < 20000; i++)
        log_line("smtpd", "line %d of a message nobody reads at the moment", i);
    assert_true(log_lines_dropped() > before);
    log_close();
    close(reader);
    unlink(path);
    rmdir(directory);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(timers_fire_in_order_and_may_be_moved_or_cleared),
        T(a_task_runs_once_however_often_it_was_deferred),
        T(tasks_that_keep_each_other_alive_do_not_starve_the_rest),
        T(a_watch_tells_what_is_ready_and_nothing_else),
        T(the_clock_stands_still_within_a_turn_and_never_runs_backwards),
        T(a_line_cannot_be_forged),
        T(a_stuck_reader_costs_lines_and_not_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
