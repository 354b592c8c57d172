/* SPDX-License-Identifier: Apache-2.0 */
/* The log's line shape on a file and on the journal (LOG-1), seen from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *g_text;

/* What is logged between begin and end, wherever it went. */
static char g_path[] = "test_log.XXXXXX";
static int g_stderr;

static void read_back(void)
{
    static char bytes[8192];
    FILE *f = fopen(g_path, "r");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes - 1, f);
    bytes[n] = '\0';
    fclose(f);
    g_text = bytes;
}

static int setup(void **state)
{
    (void)state;
    memcpy(g_path + strlen(g_path) - 6, "XXXXXX", 6);
    int fd = mkstemp(g_path);
    g_stderr = dup(2);
    return fd >= 0 && g_stderr >= 0 && dup2(fd, 2) == 2 && close(fd) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(g_path);
    unsetenv("JOURNAL_STREAM");
    return dup2(g_stderr, 2) == 2 && close(g_stderr) == 0 ? 0 : -1;
}

/* Stderr is the journal, or, with `beside`, another file than that. */
static void journal_is(ino_t beside)
{
    struct stat st;
    char stream[64];
    assert_int_equal(fstat(2, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)(st.st_ino + beside));
    setenv("JOURNAL_STREAM", stream, 1);
}

static void say(const char *path)
{
    struct loop *loop = NULL;
    assert_int_equal(loop_open(&loop), ERR_OK);
    assert_int_equal(log_open(loop, "ironspool", path), ERR_OK);
    log_line("smtpd", "connect from h[127.0.0.1]");
    log_line("spool", "warning: event member_state: absent");
    log_line("alarm", "error: e");
    log_line("spool", "critical: event record_lost: x");
    log_line("spool", "fatal: f\nwith two lines");
    log_close();
    loop_close(&loop);
    read_back();
}

static void the_journal_gets_priorities_and_no_time(void **state)
{
    char expected[512];
    int pid = (int)getpid();
    (void)state;
    journal_is(0);
    say(NULL);
    snprintf(expected, sizeof expected,
             "<6>ironspool/smtpd[%d]: connect from h[127.0.0.1]\n<4>ironspool/spool[%d]: warning: event member_state: absent\n"
             "<3>ironspool/alarm[%d]: error: e\n<2>ironspool/spool[%d]: critical: event record_lost: x\n"
             "<2>ironspool/spool[%d]: fatal: f\\x0Awith two lines\n", pid, pid, pid, pid, pid);
    assert_string_equal(g_text, expected);
}

/* A service whose output goes to a file, or a program that it starts. */
static void another_file_is_not_the_journal(void **state)
{
    (void)state;
    journal_is(1);
    say(NULL);
    assert_null(strstr(g_text, "<4>"));
    assert_int_equal(g_text[9], ':');
    setenv("JOURNAL_STREAM", "journal", 1);
    say(NULL);
    assert_null(strstr(g_text, "<4>"));
}

static void anybody_else_gets_a_time_and_no_priority(void **state)
{
    (void)state;
    say(NULL);
    assert_null(strstr(g_text, "<4>"));
    assert_int_equal(g_text[6], ' '); /* "Nov 24 " */
    assert_int_equal(g_text[9], ':');
}

static void a_file_is_not_the_journal_whatever_stderr_is(void **state)
{
    (void)state;
    journal_is(0);
    say(g_path);
    assert_null(strstr(g_text, "<4>"));
    assert_non_null(strstr(g_text, "warning: event member_state"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_journal_gets_priorities_and_no_time, setup, teardown),
        cmocka_unit_test_setup_teardown(another_file_is_not_the_journal, setup, teardown),
        cmocka_unit_test_setup_teardown(anybody_else_gets_a_time_and_no_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_is_not_the_journal_whatever_stderr_is, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
