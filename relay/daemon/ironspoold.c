/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's main: the command line, nothing else. supervisor.c goes on. */
#include "maildirs.h"
#include "sandbox.h"
#include "supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void usage(FILE *to)
{
    fprintf(to,
            "usage: ironspoold [-n] [-c FILE]\n"
            "  -c FILE  the configuration (default: $%s, else %s)\n"
            "  -n       check the configuration and exit: 0 it is good, 1 it is not\n"
            "  -V       print the version\n"
            "Runs in the foreground. SIGHUP reads the configuration again, SIGTERM finishes what is under way and stops.\n",
            CONFIG_PATH_VARIABLE, CONFIG_PATH_DEFAULT);
}

int main(int argc, char **argv)
{
    const char *path = config_default_path();
    bool check = false;
    int option;
    while ((option = getopt(argc, argv, "c:nVh")) != -1) {
        switch (option) {
        case 'c': path = optarg; break;
        case 'n': check = true; break;
        case 'V': printf("ironspoold %s\n", IRONSPOOL_VERSION); return 0;
        case 'h': usage(stdout); return 0;
        default: usage(stderr); return 2;
        }
    }
    if (optind < argc) {
        usage(stderr);
        return 2;
    }
    /* children and a reload read it again: a relative path would depend on where we were started */
    char *absolute = realpath(path, NULL), text[CONFIG_TEXT_BYTES];
    struct config *config = NULL;
    enum err e = config_load(absolute ? absolute : path, &config, text);
    free(absolute);
    if (e == ERR_OK)
        e = config_open_tables(config, text);
    if (e != ERR_OK) {
        fprintf(stderr, "ironspoold: %s\n", text);
        config_free(&config);
        return 1;
    }
    if (!check)
        return supervisor_run(config);
    struct identity identity;
    if ((e = identity_find(config, &identity, text)) != ERR_OK) {
        fprintf(stderr, "ironspoold: %s\n", text);
        config_free(&config);
        return 1;
    }
    maildirs_warn(config, &identity);
    printf("%s: good\n", config->file);
    config_free(&config);
    return 0;
}
