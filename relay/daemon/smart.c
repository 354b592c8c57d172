/* SPDX-License-Identifier: Apache-2.0 */
/* smartctl --json, ATA, SCSI and NVMe. See smart.h; which attributes count and why: design/0031. */
#include "smart.h"

#include "json_in.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* smartctl's exit status is a mask (its manual, "EXIT STATUS"). */
#define EXIT_NOT_ASKED 0x03u   /* the command line, or the device could not be opened */
#define EXIT_FAILING 0x08u
#define EXIT_PREFAIL_NOW 0x10u
#define EXIT_LOGS 0xc0u        /* errors in the error log, failed self-tests */

/* ATA attributes by number: names differ between vendors. */
enum { ATA_REALLOCATED = 5, ATA_REPORTED_UNCORRECTABLE = 187, ATA_PENDING = 197, ATA_OFFLINE_UNCORRECTABLE = 198 };

#define NVME_SPARE_LOW 0x01u
#define NVME_RELIABILITY 0x04u
#define NVME_READ_ONLY 0x08u
#define NVME_BACKUP_FAILED 0x10u
#define WORN_PERCENT 90u

static const char *const words[] = {"unknown", "passed", "attention", "failing"};

const char *smart_verdict_word(enum smart_verdict v)
{
    return words[v];
}

enum smart_verdict smart_verdict_of(const char *word)
{
    for (int v = 0; v < 4; v++)
        if (strcmp(words[v], word) == 0)
            return (enum smart_verdict)v;
    return SMART_UNKNOWN;
}

/* The worst stays; its evidence is what is told. */
static void judge(struct smart_report *r, enum smart_verdict v, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void judge(struct smart_report *r, enum smart_verdict v, const char *format, ...)
{
    va_list args;
    if (v <= r->verdict)
        return;
    r->verdict = v;
    va_start(args, format);
    vsnprintf(r->evidence, sizeof r->evidence, format, args);
    va_end(args);
}

static void take_ata(const struct json_in *in, struct smart_report *r)
{
    size_t count = json_in_items(in, "ata_smart_attributes.table");
    for (size_t i = 0; i < count && i < 256; i++) {
        char id[64], raw[64];
        snprintf(id, sizeof id, "ata_smart_attributes.table.%zu.id", i);
        snprintf(raw, sizeof raw, "ata_smart_attributes.table.%zu.raw.value", i);
        uint64_t value = json_in_count(in, raw);
        switch (json_in_count(in, id)) {
        case ATA_REALLOCATED: r->reallocated = value; break;
        case ATA_PENDING: r->pending = value; break;
        case ATA_REPORTED_UNCORRECTABLE:
        case ATA_OFFLINE_UNCORRECTABLE: r->uncorrectable = value > r->uncorrectable ? value : r->uncorrectable; break;
        default: break;
        }
    }
}

static void take_others(const struct json_in *in, struct smart_report *r)
{
    r->critical_warning = json_in_count(in, "nvme_smart_health_information_log.critical_warning");
    r->media_errors = json_in_count(in, "nvme_smart_health_information_log.media_errors");
    r->percentage_used = json_in_count(in, "nvme_smart_health_information_log.percentage_used");
    if (json_in_has(in, "scsi_percentage_used_endurance_indicator"))
        r->percentage_used = json_in_count(in, "scsi_percentage_used_endurance_indicator");
    if (json_in_has(in, "scsi_grown_defect_list"))
        r->reallocated = json_in_count(in, "scsi_grown_defect_list");
    uint64_t read = json_in_count(in, "scsi_error_counter_log.read.total_uncorrected_errors");
    uint64_t written = json_in_count(in, "scsi_error_counter_log.write.total_uncorrected_errors");
    if (read || written)
        r->uncorrectable = read > written ? read : written;
    r->temperature_celsius = json_in_count(in, "temperature.current");
    r->power_on_hours = json_in_count(in, "power_on_time.hours");
}

static void judge_failing(const struct json_in *in, uint64_t status, struct smart_report *r)
{
    uint64_t w = r->critical_warning;
    bool said = json_in_has(in, "smart_status.passed");
    if (said && json_in_true(in, "smart_status.passed"))
        judge(r, SMART_PASSED, "the drive passes its own check");
    if ((said && !json_in_true(in, "smart_status.passed")) || (status & EXIT_FAILING))
        judge(r, SMART_FAILING, "the drive says of itself that it is failing");
    if (w & (NVME_SPARE_LOW | NVME_RELIABILITY | NVME_READ_ONLY | NVME_BACKUP_FAILED))
        judge(r, SMART_FAILING, "NVMe critical warning 0x%02llx:%s%s%s%s", (unsigned long long)w,
              w & NVME_SPARE_LOW ? " spare low" : "", w & NVME_RELIABILITY ? " reliability degraded" : "",
              w & NVME_READ_ONLY ? " read-only" : "", w & NVME_BACKUP_FAILED ? " cache not protected" : "");
    if (status & EXIT_PREFAIL_NOW)
        judge(r, SMART_FAILING, "an attribute that foretells failure is below its threshold");
}

static void judge_attention(uint64_t status, struct smart_report *r)
{
    if (r->pending)
        judge(r, SMART_ATTENTION, "%llu sectors cannot be read and wait to be reallocated", (unsigned long long)r->pending);
    if (r->uncorrectable)
        judge(r, SMART_ATTENTION, "%llu uncorrectable errors", (unsigned long long)r->uncorrectable);
    if (r->media_errors)
        judge(r, SMART_ATTENTION, "%llu media errors", (unsigned long long)r->media_errors);
    if (r->reallocated)
        judge(r, SMART_ATTENTION, "%llu sectors were reallocated", (unsigned long long)r->reallocated);
    if (r->percentage_used >= WORN_PERCENT)
        judge(r, SMART_ATTENTION, "%llu %% of its life is used up", (unsigned long long)r->percentage_used);
    if (r->critical_warning)
        judge(r, SMART_ATTENTION, "NVMe critical warning 0x%02llx: temperature", (unsigned long long)r->critical_warning);
    if (status & EXIT_LOGS)
        judge(r, SMART_ATTENTION, "its log holds errors or failed self-tests");
}

void smart_parse(const char *bytes, uint32_t len, struct smart_report *report_out)
{
    struct smart_report r = {.evidence = "smartctl gave no JSON"};
    struct json_in *in = NULL;
    if (len <= SMART_BYTES_MAX && json_in_parse(bytes, len, NULL, &in) == ERR_OK) {
        uint64_t status = json_in_count(in, "smartctl.exit_status");
        const char *said = json_in_text(in, "smartctl.messages.0.string");
        snprintf(r.evidence, sizeof r.evidence, "%s", said[0] ? said : "the device has no SMART");
        snprintf(r.model, sizeof r.model, "%s", json_in_text(in, json_in_has(in, "model_name") ? "model_name" : "scsi_model_name"));
        snprintf(r.serial, sizeof r.serial, "%s", json_in_text(in, "serial_number"));
        if (!(status & EXIT_NOT_ASKED)) {
            take_ata(in, &r);
            take_others(in, &r);
            judge_failing(in, status, &r);
            judge_attention(status, &r);
        }
    }
    json_in_free(&in);
    *report_out = r;
}

void smart_report_members(const struct smart_report *r, struct json_out *j)
{
    json_text(j, "verdict", smart_verdict_word(r->verdict));
    json_text(j, "evidence", r->evidence);
    json_text(j, "model", r->model);
    json_text(j, "serial", r->serial);
    json_count(j, "reallocated", r->reallocated);
    json_count(j, "pending", r->pending);
    json_count(j, "uncorrectable", r->uncorrectable);
    json_count(j, "media_errors", r->media_errors);
    json_count(j, "percentage_used", r->percentage_used);
    json_count(j, "critical_warning", r->critical_warning);
    json_count(j, "temperature_celsius", r->temperature_celsius);
    json_count(j, "power_on_hours", r->power_on_hours);
}
