/* set: what a set says of itself, as it stands beside its files, and how fresh that is. */
#include "rotate_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <postern/jwt.h>
#include <stdio.h>
#include <string.h>

enum { SET_JSON_MAX = 256 * 1024 };

MEM_DEFINE_CLEANUP(json_t, json_decref)

/* --- how fresh ---------------------------------------------------------------------------------
 */
int64_t rotate_set_ends_s(const struct rotate_set *set)
{
    int64_t ends_s = 0;
    for (size_t i = 0; i < set->n_parts; i++) {
        if (i == 0 || set->parts[i].ends_s < ends_s) {
            ends_s = set->parts[i].ends_s;
        }
    }
    return ends_s;
}

const char *rotate_freshness_name(enum rotate_freshness f)
{
    static const char *const names[] = {"fresh", "stale", "expired", "missing"};
    return (size_t)f < sizeof(names) / sizeof(names[0]) ? names[f] : "?";
}

/* Both ends are at most 2^40 seconds: set_part checks it, and certificates end before. */
static int64_t stale_s(const struct rotate_part *p, uint32_t warn_percent)
{
    int64_t life_s = p->ends_s > p->begins_s ? p->ends_s - p->begins_s : 0;
    return p->ends_s - life_s * (int64_t)warn_percent / 100;
}

enum rotate_freshness rotate_set_judge(const struct rotate_set *set, uint32_t warn_percent,
                                       int64_t now_s)
{
    enum rotate_freshness worst = ROTATE_FRESH;
    for (size_t i = 0; i < set->n_parts; i++) {
        const struct rotate_part *p = &set->parts[i];
        if (now_s >= p->ends_s) {
            return ROTATE_EXPIRED;
        }
        if (now_s >= stale_s(p, warn_percent)) {
            worst = ROTATE_STALE;
        }
    }
    return worst;
}

int64_t rotate_set_next_change_s(const struct rotate_set *set, uint32_t warn_percent, int64_t now_s)
{
    int64_t next_s = INT64_MAX;
    for (size_t i = 0; i < set->n_parts; i++) {
        const int64_t at_s[] = {stale_s(&set->parts[i], warn_percent), set->parts[i].ends_s};
        for (size_t k = 0; k < 2; k++) {
            if (at_s[k] > now_s && at_s[k] < next_s) {
                next_s = at_s[k];
            }
        }
    }
    return next_s;
}

/* --- writing -----------------------------------------------------------------------------------
 */
static bool put_text(struct buf *out, const char *key, const char *value)
{
    char escaped[2 * SPIFFE_ID_MAX + 64];
    size_t n = log_json_escape(str_of(value), escaped, sizeof(escaped));
    return buf_printf(out, "\"%s\":\"%.*s\"", key, (int)n, escaped);
}

bool rotate_set_write(const struct rotate_set *set, struct buf *out)
{
    bool ok = buf_printf(out, "{\"version\":1,\"generation\":%" PRIu64 ",\"written\":%" PRId64 ",",
                         set->generation, set->written_s) &&
              put_text(out, "spiffe_id", set->spiffe_id);
    if (ok && set->has_leaf) {
        ok = buf_printf(out, ",") && put_text(out, "serial", set->serial) &&
             buf_printf(out, ",\"leaf_sha256\":\"");
        for (size_t i = 0; ok && i < sizeof(set->leaf_sha256); i++) {
            ok = buf_printf(out, "%02x", set->leaf_sha256[i]);
        }
        ok = ok && buf_printf(out, "\"");
    }
    ok = ok && buf_printf(out, ",\"parts\":[");
    for (size_t i = 0; ok && i < set->n_parts; i++) {
        const struct rotate_part *p = &set->parts[i];
        ok = buf_printf(out, "%s{", i > 0 ? "," : "") && put_text(out, "file", p->file) &&
             buf_printf(out, ",\"begins\":%" PRId64 ",\"ends\":%" PRId64 "}", p->begins_s,
                        p->ends_s);
    }
    return ok && buf_printf(out, "]}\n");
}

/* --- reading -----------------------------------------------------------------------------------
 */
static int refuse(struct err *err, const char *why)
{
    return err_set(err, ERR_PROTOCOL, "%s: %s", ROTATE_SET_FILE, why);
}

static bool take_time(const json_t *object, const char *key, int64_t *ret)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 ||
        json_integer_value(v) > INT64_C(1) << 40) {
        return false;
    }
    *ret = json_integer_value(v);
    return true;
}

static bool take_text(const json_t *object, const char *key, char *ret, size_t size)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_string(v) || json_string_length(v) >= size ||
        strlen(json_string_value(v)) != json_string_length(v)) {
        return false;
    }
    memcpy(ret, json_string_value(v), json_string_length(v) + 1);
    return true;
}

static bool take_digest(const json_t *object, uint8_t ret[32])
{
    static const char digits[] = "0123456789abcdef";
    char hex[65];
    if (!take_text(object, "leaf_sha256", hex, sizeof(hex)) || strlen(hex) != 64) {
        return false;
    }
    for (size_t i = 0; i < 64; i++) {
        const char *at = strchr(digits, hex[i]);
        if (at == NULL) {
            return false;
        }
        uint8_t v = (uint8_t)(at - digits);
        ret[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : ret[i / 2] | v);
    }
    return true;
}

static bool take_parts(const json_t *root, struct rotate_set *set)
{
    const json_t *parts = json_object_get(root, "parts");
    size_t max = sizeof(set->parts) / sizeof(set->parts[0]);
    if (!json_is_array(parts) || json_array_size(parts) > max) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *p = json_array_get(parts, i);
        struct rotate_part *part = &set->parts[i];
        if (!take_text(p, "file", part->file, sizeof(part->file)) ||
            !take_time(p, "begins", &part->begins_s) || !take_time(p, "ends", &part->ends_s)) {
            return false;
        }
        set->n_parts++;
    }
    return true;
}

int rotate_set_parse(struct str json, struct rotate_set *ret, struct err *err)
{
    mem_autofree struct rotate_set *set = mem_must_new(struct rotate_set);
    int64_t generation = 0;
    if (json.n > SET_JSON_MAX) {
        return refuse(err, "too long");
    }
    mem_auto(json_decref) json_t *root =
        json_loadb(json.n > 0 ? json.p : "", json.n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *version = json_object_get(root, "version");
    if (!json_is_integer(version) || json_integer_value(version) != 1) {
        return refuse(err, root == NULL ? "not JSON" : "not of a version that is known");
    }
    if (!take_time(root, "generation", &generation) ||
        !take_time(root, "written", &set->written_s) ||
        !take_text(root, "spiffe_id", set->spiffe_id, sizeof(set->spiffe_id)) ||
        !take_parts(root, set)) {
        return refuse(err, "not what a set says");
    }
    set->generation = (uint64_t)generation;
    set->has_leaf = json_object_get(root, "leaf_sha256") != NULL;
    if (set->has_leaf && (!take_digest(root, set->leaf_sha256) ||
                          !take_text(root, "serial", set->serial, sizeof(set->serial)))) {
        return refuse(err, "not what a set says");
    }
    *ret = *set;
    return 0;
}
