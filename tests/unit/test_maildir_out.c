/* SPDX-License-Identifier: Apache-2.0 */
/* Maildirs on a real file system: names, one copy, failures that leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loop.h"
#include "maildir_out.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    struct loop *loop;
    struct maildir_out *out;
    char root[64];
    uint32_t done, expected, failed;
    enum err last;
} g;

static void on_done(struct maildir_delivery *d, enum err e, const char *what)
{
    (void)d;
    assert_non_null(what);
    g.done++;
    g.failed += e != ERR_OK;
    g.last = e;
    if (g.done == g.expected)
        loop_stop(g.loop);
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof g);
    snprintf(g.root, sizeof g.root, "/tmp/ironspool-maildir-XXXXXX");
    assert_non_null(mkdtemp(g.root));
    assert_int_equal(loop_open(&g.loop), ERR_OK);
    assert_int_equal(maildir_out_open(g.loop, &g.out), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    maildir_out_close(&g.out);
    loop_close(&g.loop);
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", g.root, g.root);
    return system(command) == 0 ? 0 : -1;
}

static struct maildir_delivery delivery(const char *recipient, uint64_t counter, const char *body)
{
    return (struct maildir_delivery){.root = g.root, .recipient = recipient, .recipient_len = (uint32_t)strlen(recipient),
                                     .sender = "s@a.test", .sender_len = 8, .qid = {9, counter}, .arrival_ms = 1700000000000,
                                     .hostname = "relay.test", .first = true, .last = true, .bytes = (const uint8_t *)body,
                                     .len = strlen(body), .done = on_done, .fd = -1};
}

static void run(uint32_t count)
{
    g.expected = g.done + count;
    loop_run(g.loop);
}

static void deliver(struct maildir_delivery *d)
{
    assert_int_equal(maildir_out_submit(g.out, d), ERR_OK);
    run(1);
}

static uint32_t files_in(const char *sub, char *path, size_t bytes)
{
    char directory[512];
    uint32_t count = 0;
    snprintf(directory, sizeof directory, "%s/%s", g.root, sub);
    DIR *d = opendir(directory);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        if (e->d_name[0] == '.')
            continue;
        count++;
        if (path)
            snprintf(path, bytes, "%s/%s", directory, e->d_name);
    }
    if (d)
        closedir(d);
    return count;
}

static void a_delivery_lies_in_new_and_nothing_is_left_in_tmp(void **state)
{
    (void)state;
    char path[1024], text[256] = {0};
    struct maildir_delivery d = delivery("u@b.test", 1, "S: x\r\n\r\nbody\r\n");
    deliver(&d);
    assert_int_equal(g.failed, 0);
    assert_int_equal(files_in("u@b.test/new", path, sizeof path), 1);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    assert_string_equal(text, "Return-Path: <s@a.test>\r\nDelivered-To: u@b.test\r\nS: x\r\n\r\nbody\r\n");
}

static void the_same_delivery_again_makes_no_second_copy(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct maildir_delivery d = delivery("u@b.test", 1, "x\r\n");
        d.again = i > 0;
        deliver(&d);
    }
    assert_int_equal(g.failed, 0);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 1);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 0);
}

static void a_copy_that_was_read_already_is_not_delivered_again(void **state)
{
    (void)state;
    char path[1024], seen[2048];
    struct maildir_delivery d = delivery("u@b.test", 1, "x\r\n");
    deliver(&d);
    assert_int_equal(files_in("u@b.test/new", path, sizeof path), 1);
    snprintf(seen, sizeof seen, "%s/u@b.test/cur%s:2,S", g.root, strrchr(path, '/'));
    assert_int_equal(rename(path, seen), 0);
    d = delivery("u@b.test", 1, "x\r\n");
    d.again = true;
    deliver(&d);
    assert_int_equal(g.failed, 0);
    assert_true(d.present);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 0);
    assert_int_equal(files_in("u@b.test/cur", NULL, 0), 1);
}

static void recipients_and_messages_do_not_share_a_file(void **state)
{
    (void)state;
    struct maildir_delivery a = delivery("u@b.test", 1, "x\r\n"), b = delivery("u@b.test", 2, "x\r\n"), c = a;
    c.recipient_index = 1;
    deliver(&a);
    deliver(&b);
    deliver(&c);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 3);
}

static void many_at_once_all_arrive(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct maildir_delivery *d = calloc(COUNT, sizeof *d);
    char names[7][16];
    for (uint32_t i = 0; i < 7; i++)
        snprintf(names[i], sizeof names[i], "u%u@b.test", i);
    for (uint32_t i = 0; i < COUNT; i++) {
        d[i] = delivery(names[i % 7], i, "x\r\n");
        assert_int_equal(maildir_out_submit(g.out, &d[i]), ERR_OK);
    }
    run(COUNT);
    assert_int_equal(g.failed, 0);
    uint32_t total = 0;
    for (uint32_t i = 0; i < 7; i++) {
        char sub[32];
        snprintf(sub, sizeof sub, "%s/new", names[i]);
        total += files_in(sub, NULL, 0);
    }
    assert_int_equal(total, COUNT);
    free(d);
}

static void beyond_the_bound_the_answer_is_busy(void **state)
{
    (void)state;
    struct maildir_delivery *d = calloc(MAILDIR_QUEUE_MAX + 1, sizeof *d);
    for (uint32_t i = 0; i < MAILDIR_QUEUE_MAX; i++) {
        d[i] = delivery("u@b.test", i, "x\r\n");
        assert_int_equal(maildir_out_submit(g.out, &d[i]), ERR_OK);
    }
    d[MAILDIR_QUEUE_MAX] = delivery("u@b.test", MAILDIR_QUEUE_MAX, "x\r\n");
    assert_int_equal(maildir_out_submit(g.out, &d[MAILDIR_QUEUE_MAX]), ERR_BUSY);
    run(MAILDIR_QUEUE_MAX);
    assert_int_equal(g.failed, 0);
    free(d);
}

static void a_body_may_come_in_steps(void **state)
{
    (void)state;
    char path[1024];
    struct stat st;
    struct maildir_delivery d = delivery("u@b.test", 1, "one\r\n");
    d.last = false;
    deliver(&d);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 0);
    d.first = false;
    deliver(&d);
    d.last = true;
    d.len = 0;
    deliver(&d);
    assert_int_equal(g.failed, 0);
    assert_int_equal(files_in("u@b.test/new", path, sizeof path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, strlen("Return-Path: <s@a.test>\r\nDelivered-To: u@b.test\r\none\r\none\r\n"));
}

static void what_was_begun_and_given_up_leaves_nothing(void **state)
{
    (void)state;
    struct maildir_delivery d = delivery("u@b.test", 1, "one\r\n");
    d.last = false;
    deliver(&d);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 1);
    maildir_out_abandon(&d);
    assert_int_equal(files_in("u@b.test/tmp", NULL, 0), 0);
    assert_int_equal(files_in("u@b.test/new", NULL, 0), 0);
}

static void a_root_that_cannot_be_made_is_an_error_not_a_delivery(void **state)
{
    (void)state;
    struct maildir_delivery d = delivery("u@b.test", 1, "x\r\n");
    d.root = "/proc/ironspool";
    deliver(&d);
    assert_int_equal(g.failed, 1);
}

static void a_missing_root_is_made(void **state)
{
    (void)state;
    char root[128];
    struct maildir_delivery d = delivery("u@b.test", 1, "x\r\n");
    snprintf(root, sizeof root, "%s/far/away", g.root);
    d.root = root;
    deliver(&d);
    assert_int_equal(g.failed, 0);
    assert_int_equal(files_in("far/away/u@b.test/new", NULL, 0), 1);
}

static void addresses_become_directories_and_stay_below_the_root(void **state)
{
    (void)state;
    static const struct { const char *address, *path; } cases[] = {
        {"user@Example.ORG", "/r/user@example.org"},
        {"User@example.org", "/r/User@example.org"},
        {"../../etc/passwd", "/r/%2E.%2F..%2Fetc%2Fpasswd"},
        {".hidden@x.test", "/r/%2Ehidden@x.test"},
        {"..", "/r/%2E."},
        {"a/b@x.test", "/r/a%2Fb@x.test"},
        {"100%@x.test", "/r/100%25@x.test"},
        {"a b\n@x.test", "/r/a%20b%0A@x.test"},
        {"", "/r/%"},
    };
    char path[512], other[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(maildir_directory("/r", cases[i].address, (uint32_t)strlen(cases[i].address), path, sizeof path), ERR_OK);
        assert_string_equal(path, cases[i].path);
    }
    char a[320], b[320];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    b[319] = 'y';
    assert_int_equal(maildir_directory("/r", a, sizeof a, path, sizeof path), ERR_OK);
    assert_int_equal(maildir_directory("/r", b, sizeof b, other, sizeof other), ERR_OK);
    assert_string_not_equal(path, other);
    assert_true(strlen(path) < 255);
    assert_int_equal(maildir_directory("/r", a, sizeof a, path, 20), ERR_TOO_LARGE);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_delivery_lies_in_new_and_nothing_is_left_in_tmp),
        T(the_same_delivery_again_makes_no_second_copy),
        T(a_copy_that_was_read_already_is_not_delivered_again),
        T(recipients_and_messages_do_not_share_a_file),
        T(many_at_once_all_arrive),
        T(beyond_the_bound_the_answer_is_busy),
        T(a_body_may_come_in_steps),
        T(what_was_begun_and_given_up_leaves_nothing),
        T(a_root_that_cannot_be_made_is_an_error_not_a_delivery),
        T(a_missing_root_is_made),
        T(addresses_become_directories_and_stay_below_the_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
