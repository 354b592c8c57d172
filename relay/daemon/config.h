/* SPDX-License-Identifier: Apache-2.0 */
/* The one configuration file: read, checked, turned into what the parts take. docs/CONFIG.md lists every key.
 *
 *  CFG-1  a file that is wrong anywhere yields no config at all, and a text that names file, line and key.
 *  CFG-2  every key has a default; what the file does not say is what docs/CONFIG.md says.
 *  CFG-3  a config is read-only once made; a reload makes a new one.
 *  CFG-4  a key that is set twice in one section is wrong: which one counts is not guessed.
 *  CFG-5  who only asks the daemon need not be able to read what the daemon reads: keys, tables, programs. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <base/err.h>
#include <settings.h>
#include <spoolfs/io_real.h>
#include <spoolfs/pool.h>
#include <stdbool.h>
#include <stdint.h>

#define CONFIG_PATH_DEFAULT "/etc/ironspool/ironspool.conf"
#define CONFIG_PATH_VARIABLE "IRONSPOOL_CONF"
#define CONFIG_FILE_BYTES_MAX ((uint32_t)(1024 * 1024)) /* a configuration larger than this is a mistake */
#define CONFIG_TEXT_BYTES 768u
#define CONFIG_LISTENS_MAX 16u
#define CONFIG_MAPS_MAX 8u

struct config_listen {
    char name[32];
    char address[64];          /* numeric, IPv4 or IPv6 */
    uint32_t port;
};

struct config_alarm {
    char hook_program[256], webhook[512], webhook_ca_file[256], heartbeat_url[512];
    char smartctl[256];        /* empty, or not there: SMART is not read */
    uint64_t repeat_ms, delay_ms, hook_timeout_ms, heartbeat_ms, smart_interval_ms;
    bool heartbeat_hook;
};

/* Of the member with the same number. */
struct config_smart { char device[256], type[32]; };

struct config {
    char file[256];
    struct settings settings;
    struct config_alarm alarm;
    struct config_smart smart[MEMBERS_MAX];
    struct pool_config pool;   /* sink and index are the spool process's to fill in */
    char io_engine_word[16];
    enum io_engine io_engine;
    struct config_listen listens[CONFIG_LISTENS_MAX];
    uint32_t listen_count;
    struct config_listen http; /* port 0: no status page */
    struct config_maps { char *files[CONFIG_MAPS_MAX]; uint32_t count; } transport_maps, alias_maps, virtual_alias_maps;
    char state_directory[200];
    char control_socket[108];  /* sun_path */
    char user[64], group[64];
    char log_file[256];        /* empty: stderr, which is the journal under systemd */
    uint64_t shutdown_grace_ms;
    bool fault_injection;
    bool sandbox;
    bool look_only;            /* read beside the daemon: CFG-5 */
};

/* On failure text says "file:line: what", ready to be shown. ERR_CONFIG, ERR_NOT_FOUND (no such file), ERR_NO_MEMORY. */
enum err config_load(const char *path, struct config **config_out, char text[CONFIG_TEXT_BYTES]) MUST_CHECK;
/* For spooltool: files that it names and this user may not read or run are taken for good. Their absence is an error here, too. */
enum err config_load_to_look(const char *path, struct config **config_out, char text[CONFIG_TEXT_BYTES]) MUST_CHECK;
/* As config_load from memory; `name` stands for the file in messages. Files it names are looked at. */
enum err config_parse(const char *name, const char *bytes, uint32_t len, struct config **config_out,
                      char text[CONFIG_TEXT_BYTES]) MUST_CHECK;
/* Reads transport_maps, relayhost and default_transport into settings.transports, alias_maps and virtual_alias_maps into
 * settings.aliases: for the daemon only, tables may be large. ERR_CONFIG, ERR_NO_MEMORY. */
enum err config_open_tables(struct config *c, char text[CONFIG_TEXT_BYTES]) MUST_CHECK;
void config_close_tables(struct config *c);
void config_free(struct config **config);
/* The path to use when the command line names none. */
const char *config_default_path(void);
/* True when a running spool process can not go on with `next` and has to be started anew. */
bool config_spool_differs(const struct config *now, const struct config *next);

#endif
