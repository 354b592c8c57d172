/* SPDX-License-Identifier: Apache-2.0 */
/* Owns: the tar format (POSIX ustar, plain files only), the zstd child process, and the file that is no archive yet. */
#include "archive.h"

#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <libgen.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAR_BLOCK 512u
#define TAR_SIZE_MAX UINT64_C(077777777777) /* eleven octal digits: 8 GiB, eight times a message */
#define TAR_END_BYTES (2 * TAR_BLOCK)

struct tar_head {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2];
    char owner[32], group[32], major[8], minor[8], prefix[155], padding[12];
};
_Static_assert(sizeof(struct tar_head) == TAR_BLOCK, "tar head");

/* Runs zstd between `file` and one end of a pipe; the other end becomes the stream. */
static int archive_start(int file, bool write, struct archive *a)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return tool_say(TOOL_FAILED, "pipe: %s", strerror(errno));
    int ours = ends[write], theirs = ends[!write];
    a->zstd = fork();
    if (a->zstd == 0) {
        dup2(write ? theirs : file, STDIN_FILENO);
        dup2(write ? file : theirs, STDOUT_FILENO);
        execlp("zstd", "zstd", "-q", write ? "-c" : "-dc", (char *)NULL);
        fprintf(stderr, "spooltool: zstd: %s; apt-get install zstd\n", strerror(errno));
        _exit(127);
    }
    close(theirs);
    a->stream = a->zstd > 0 ? fdopen(ours, write ? "w" : "r") : NULL;
    if (!a->stream) {
        close(ours);
        return tool_say(TOOL_FAILED, "zstd could not be started: %s", strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN); /* zstd that ends early is an error of the write */
    return TOOL_DONE;
}

static int archive_failed(const char *path)
{
    return tool_say(errno == EACCES || errno == EPERM ? TOOL_DENIED : TOOL_FAILED, "%s: %s", path ? path : "standard stream",
                    strerror(errno));
}

/* --- the file aside --- */

static const char *volatile aside_now; /* for a signal: one archive is written at a time */

static void aside_interrupted(int number)
{
    if (aside_now)
        unlink(aside_now);
    signal(number, SIG_DFL);
    raise(number);
}

static void aside_watch(const char *path)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    aside_now = path;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (signal(numbers[i], path ? aside_interrupted : SIG_DFL) == SIG_IGN)
            signal(numbers[i], SIG_IGN); /* nohup */
}

/* Beside the file it becomes, under a name that nobody else can have taken before us. -1: errno. */
static int aside_open(const char *path, struct archive *a)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && !S_ISREG(st.st_mode))
        return open(path, O_WRONLY | O_CLOEXEC); /* a device, a pipe: nothing to replace */
    a->path = there ? realpath(path, NULL) : strdup(path); /* a link stays a link */
    if (!a->path || asprintf(&a->aside, "%s.new.XXXXXX", a->path) < 0) {
        a->aside = NULL;
        return -1;
    }
    int file = mkostemp(a->aside, O_CLOEXEC);
    if (file >= 0)
        aside_watch(a->aside);
    return file;
}

static bool aside_take_name(struct archive *a)
{
    if (!a->aside)
        return true;
    if (fsync(a->file) != 0 || rename(a->aside, a->path) != 0)
        return false;
    free(a->aside);
    a->aside = NULL;
    aside_watch(NULL);
    int directory = open(dirname(a->path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = directory >= 0 && fsync(directory) == 0;
    if (directory >= 0)
        close(directory);
    return ok;
}

static void aside_forget(struct archive *a)
{
    if (a->aside && aside_now == a->aside) {
        unlink(a->aside);
        aside_watch(NULL);
    }
    if (a->file >= 0)
        close(a->file);
    free(a->aside);
    free(a->path);
    *a = (struct archive){.file = -1};
}

/* --- archives --- */

bool archive_is_standard(const char *path)
{
    struct stat out, named;
    return !path || strcmp(path, "-") == 0 ||
           (fstat(STDOUT_FILENO, &out) == 0 && stat(path, &named) == 0 && out.st_dev == named.st_dev && out.st_ino == named.st_ino);
}

int archive_create(const char *path, struct archive *archive_out)
{
    struct archive a = {.file = -1};
    a.file = archive_is_standard(path) ? dup(STDOUT_FILENO) : aside_open(path, &a);
    int code = a.file >= 0 ? archive_start(a.file, true, &a) : archive_failed(path);
    if (code != TOOL_DONE)
        aside_forget(&a);
    else
        *archive_out = a;
    return code;
}

int archive_open(const char *path, struct archive *archive_out)
{
    int file = !path || strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return archive_failed(path);
    struct archive a = {.file = -1};
    int code = archive_start(file, false, &a);
    close(file);
    if (code == TOOL_DONE)
        *archive_out = a;
    return code;
}

bool archive_close(struct archive *a)
{
    int status = 0;
    bool ok = !ferror(a->stream);
    ok = fclose(a->stream) == 0 && ok;
    ok = waitpid(a->zstd, &status, 0) == a->zstd && WIFEXITED(status) && WEXITSTATUS(status) == 0 && ok;
    return ok;
}

bool archive_finish(struct archive *a)
{
    static const char zeros[TAR_END_BYTES];
    bool ok = fwrite(zeros, sizeof zeros, 1, a->stream) == 1;
    ok = archive_close(a) && ok;
    ok = ok && aside_take_name(a);
    aside_forget(a);
    return ok;
}

void archive_abandon(struct archive *a)
{
    (void)!archive_close(a); /* it is not whole either way */
    aside_forget(a);
}

static unsigned tar_checksum(const struct tar_head *h)
{
    const unsigned char *bytes = (const unsigned char *)h;
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *h; i++)
        sum += i >= offsetof(struct tar_head, checksum) && i < offsetof(struct tar_head, type) ? ' ' : bytes[i];
    return sum;
}

static bool copy(FILE *from, FILE *to, uint64_t length)
{
    static char buffer[65536];
    while (length > 0) {
        size_t want = length < sizeof buffer ? (size_t)length : sizeof buffer, n = fread(buffer, 1, want, from);
        if (n == 0 || (to && fwrite(buffer, 1, n, to) != n))
            return false;
        length -= n;
    }
    return true;
}

bool archive_add(struct archive *a, const char *name, FILE *bytes, uint64_t length, uint64_t mtime_s)
{
    static const char zeros[TAR_BLOCK];
    struct tar_head h = {.mode = "0000600", .uid = "0000000", .gid = "0000000", .type = '0',
                         .magic = "ustar", .version = {'0', '0'}};
    if (strlen(name) >= sizeof h.name || length > TAR_SIZE_MAX)
        return false;
    memcpy(h.name, name, strlen(name));
    snprintf(h.size, sizeof h.size, "%011llo", (unsigned long long)length);
    snprintf(h.mtime, sizeof h.mtime, "%011llo", (unsigned long long)(mtime_s < TAR_SIZE_MAX ? mtime_s : TAR_SIZE_MAX));
    snprintf(h.checksum, sizeof h.checksum, "%06o", tar_checksum(&h));
    h.checksum[7] = ' ';
    size_t padding = (size_t)((TAR_BLOCK - length % TAR_BLOCK) % TAR_BLOCK);
    return fwrite(&h, sizeof h, 1, a->stream) == 1 && copy(bytes, a->stream, length) &&
           fwrite(zeros, 1, padding, a->stream) == padding;
}

enum err archive_next(struct archive *a, char name_out[ARCHIVE_NAME_BYTES], uint64_t *length_out)
{
    struct tar_head h;
    char *end, digits[13] = "";
    size_t n = fread(&h, 1, sizeof h, a->stream);
    if (n == 0 || (n == sizeof h && h.name[0] == 0)) {
        while (fread(&h, 1, sizeof h, a->stream) > 0) /* zstd wants to be heard out */
            ;
        return ERR_NOT_FOUND;
    }
    if (n != sizeof h || memcmp(h.magic, "ustar", 5) != 0 || !memchr(h.name, 0, sizeof h.name))
        return ERR_INVALID;
    memcpy(digits, h.size, sizeof h.size);
    uint64_t length = strtoull(digits, &end, 8);
    if (end == digits || length > TAR_SIZE_MAX || (h.type != '0' && h.type != 0) ||
        strtoul(h.checksum, NULL, 8) != tar_checksum(&h))
        return ERR_INVALID;
    memcpy(name_out, h.name, sizeof h.name);
    *length_out = length;
    return ERR_OK;
}

bool archive_read(struct archive *a, FILE *to, uint64_t length)
{
    return copy(a->stream, to, length) && copy(a->stream, NULL, (TAR_BLOCK - length % TAR_BLOCK) % TAR_BLOCK);
}
