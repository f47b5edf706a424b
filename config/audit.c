/* audit: where decisions are recorded, of a Proxy and of a Gateway file. */
#include <postern/conf.h>

#include "config_priv.h"

enum { SAMPLE_MAX = 1000000 };

static const char *const words_audit_to[] = {"stdout", "file", "unix", NULL};
static const char *const words_chain[] = {"off", "on", NULL};

/* "all", "none" or "1/N"; false: none of them. */
static bool parse_allows(struct str text, uint32_t *ret)
{
    const struct str one_of = STR_LIT("1/");
    uint64_t n;
    if (str_eq(text, STR_LIT("all")) || str_eq(text, STR_LIT("none"))) {
        *ret = str_eq(text, STR_LIT("all")) ? 1 : 0;
        return true;
    }
    if (!str_has_prefix(text, one_of) ||
        !str_to_u64((struct str){text.p + one_of.n, text.n - one_of.n}, SAMPLE_MAX, &n) || n == 0) {
        return false;
    }
    *ret = (uint32_t)n;
    return true;
}

static bool check_allows(struct context *c, const struct field *f, const struct node *n)
{
    uint32_t sample;
    if (!parse_allows(n->text, &sample)) {
        value_fail(c, f, n, NULL, "which is none of these");
        return false;
    }
    return true;
}

static void check_audit(struct context *c, const struct node *map, void *value)
{
    struct conf_audit *a = value;
    a->configured = true;
    a->sample = 1;
    if (a->allows != NULL) {
        (void)parse_allows(str_of(a->allows), &a->sample);
    }
    if (schema_word_is(map, "to", "stdout")) {
        schema_refuse_key(c, map, "path", "an audit log on standard output",
                          "say 'to: file' or 'to: unix'");
    } else {
        schema_require_key(c, map, "path", "an audit log that goes somewhere", "an absolute path");
    }
    if (!schema_word_is(map, "to", "file")) {
        schema_refuse_key(c, map, "max_size", "an audit log that is no file",
                          "whoever takes the lines keeps them");
        schema_refuse_key(c, map, "keep", "an audit log that is no file",
                          "whoever takes the lines keeps them");
    }
}

static const struct field fields_audit[] = {
    {.name = "to",
     .type = TYPE_WORD,
     .words = words_audit_to,
     .required = true,
     AT(struct conf_audit, to),
     .doc = "`stdout`: standard output. `file`: a file, which is renamed when it is full. `unix`: "
            "a Unix stream socket that somebody listens at."},
    {.name = "path",
     .type = TYPE_PATH,
     AT(struct conf_audit, path),
     .def_doc = "none: required but for `stdout`",
     .doc = "Of the file, or of the socket. The file's directory must be the process's own or "
            "root's, and nobody else's to write."},
    {.name = "max_size",
     .type = TYPE_SIZE,
     .min = 65536,
     .max = UINT64_C(1) << 40,
     AT(struct conf_audit, max_size),
     .def = "64MiB",
     .doc = "Files only: at this size the file is renamed, and a new one begun."},
    {.name = "keep",
     .type = TYPE_UINT,
     .min = 1,
     .max = 10000,
     AT(struct conf_audit, keep),
     .def = "10",
     .doc = "Files only: how many there may be, the one that is written included."},
    {.name = "allows",
     .type = TYPE_TEXT,
     .max = 16,
     AT(struct conf_audit, allows),
     .check = check_allows,
     .def = "all",
     .type_doc = "`all`, `none` or `1/N`",
     .expected = "all, none, or 1/N with N up to 1000000",
     .doc = "Which allowed connections and requests are recorded: one of N at random. What is "
            "denied, or marked by an AUDIT rule, always is."},
    {.name = "chain",
     .type = TYPE_WORD,
     .words = words_chain,
     AT(struct conf_audit, chain),
     .def = "off",
     .doc = "`on`: each line names the SHA-256 of the one before, for `postern audit verify`."},
};
const struct table table_audit = {
    .name = "audit",
    .doc = "The audit log: one line a decision (docs/audit.md). Only `allows` can be changed while "
           "the process runs.",
    .size = sizeof(struct conf_audit),
    FIELDS(fields_audit),
    .check = check_audit,
};
