/* policy_test: the table of a PolicyTest file. */
#include <postern/conf_policy_test.h>

#include "config_priv.h"

static const char *const words_expect[] = {"allow", "deny", NULL};

static const struct field fields_said[] = {
    {.name = "name",
     .type = TYPE_TEXT,
     .required = true,
     .max = 256,
     AT(struct conf_policy_said, name),
     .doc = "Of the header, in any case; of the claim, a nested one with dots."},
    {.name = "value",
     .type = TYPE_TEXT,
     .required = true,
     .max = 8192,
     AT(struct conf_policy_said, value),
     .doc = "Its text."},
};
static const struct table table_said = {
    .name = "a header or claim",
    .size = sizeof(struct conf_policy_said),
    FIELDS(fields_said),
};

static void check_request(struct context *c, const struct node *map, void *value)
{
    const struct conf_policy_request *r = value;
    bool request = r->method != NULL || r->path != NULL;
    if (r->grpc != NULL && request) {
        report(c, node_get(map, "grpc"), NULL, "'grpc' says method and path",
               "'grpc' beside 'method' or 'path'");
    } else if (r->grpc == NULL && request && (r->method == NULL || r->path == NULL)) {
        report(c, map, "both, or neither for a connection", NULL, "'%s' without '%s'",
               r->method != NULL ? "method" : "path", r->method != NULL ? "path" : "method");
    }
    if (r->grpc == NULL && !request) {
        schema_refuse_key(c, map, "host", "a connection", "say method and path for a request");
        schema_refuse_key(c, map, "headers", "a connection", "say method and path for a request");
        schema_refuse_key(c, map, "claims", "a connection", "say method and path for a request");
    }
}

static const struct field fields_request[] = {
    {.name = "peer",
     .type = TYPE_TEXT,
     .max = 2049,
     AT(struct conf_policy_request, peer),
     .def_doc = "none: a peer without identity",
     .doc = "Who calls: a SPIFFE ID, or a name with its kind (`dns:a.example`)."},
    {.name = "source",
     .type = TYPE_IP,
     AT(struct conf_policy_request, source),
     .def_doc = "not known",
     .doc = "The address that the connection comes from."},
    {.name = "target",
     .type = TYPE_SPIFFE_ID,
     .required = true,
     AT(struct conf_policy_request, target),
     .doc = "Who is called."},
    {.name = "port",
     .type = TYPE_PORT,
     .required = true,
     AT(struct conf_policy_request, port),
     .doc = "The workload's port."},
    {.name = "method",
     .type = TYPE_TEXT,
     .max = 64,
     AT(struct conf_policy_request, method),
     .def_doc = "none: a connection",
     .doc = "The method of a request."},
    {.name = "host",
     .type = TYPE_TEXT,
     .max = 255,
     AT(struct conf_policy_request, host),
     .def_doc = "none",
     .doc = "The host that it asks for."},
    {.name = "path",
     .type = TYPE_TEXT,
     .max = 8000,
     AT(struct conf_policy_request, path),
     .doc = "Its path and query, as a client writes them: they are read as a proxy reads them, "
            "and what a proxy refuses is denied."},
    {.name = "grpc",
     .type = TYPE_TEXT,
     .max = 1000,
     AT(struct conf_policy_request, grpc),
     .doc = "`pkg.Service/Method`, in place of method and path."},
    {.name = "headers",
     .type = TYPE_MAP,
     .table = &table_said,
     LIST_AT(struct conf_policy_request, headers, n_headers),
     .def_doc = "none",
     .doc = "Its header fields but the host."},
    {.name = "claims",
     .type = TYPE_MAP,
     .table = &table_said,
     LIST_AT(struct conf_policy_request, claims, n_claims),
     .def_doc = "no verified token",
     .doc = "The claims of its verified token; an element each of a list."},
    {.name = "time",
     .type = TYPE_TIME,
     AT(struct conf_policy_request, time_s),
     .def_doc = "now",
     .doc = "When it is asked, for rules that expire."},
};
static const struct table table_request = {
    .name = "'request'",
    .doc = "Without `method`, `path` and `grpc` it is a connection.",
    .size = sizeof(struct conf_policy_request),
    FIELDS(fields_request),
    .check = check_request,
};

static void check_case(struct context *c, const struct node *map, void *value)
{
    struct conf_policy_case *test = value;
    (void)c;
    test->line = map->line;
}

static const struct field fields_case[] = {
    {.name = "name",
     .type = TYPE_TEXT,
     .required = true,
     .max = 200,
     AT(struct conf_policy_case, name),
     .doc = "What is expected, in words. Unique in the file."},
    {.name = "request",
     .type = TYPE_MAP,
     .table = &table_request,
     .required = true,
     AT(struct conf_policy_case, request),
     .doc = "What is asked."},
    {.name = "expect",
     .type = TYPE_WORD,
     .words = words_expect,
     .required = true,
     AT(struct conf_policy_case, expect),
     .doc = "The verdict."},
    {.name = "rule",
     .type = TYPE_NAME,
     AT(struct conf_policy_case, rule),
     .def_doc = "any",
     .doc = "The rule that decides."},
    {.name = "audit",
     .type = TYPE_NAME,
     AT(struct conf_policy_case, audit),
     .def_doc = "not asked",
     .doc = "The first `AUDIT` rule that marks it."},
    {.name = "shadow",
     .type = TYPE_NAME,
     AT(struct conf_policy_case, shadow),
     .def_doc = "not asked",
     .doc = "The rule in `dry-run` by which the verdict would be another one."},
};
static const struct table table_case = {
    .name = "a test",
    .size = sizeof(struct conf_policy_case),
    FIELDS(fields_case),
    .check = check_case,
};

static void check_file(struct context *c, const struct node *map, void *value)
{
    (void)value;
    schema_check_unique(c, node_get(map, "tests"), "name", "test");
}

static const struct field fields_policy_test[] = {
    KIND_FIELDS("PolicyTest"),
    {.name = "policy",
     .type = TYPE_PATH,
     AT(struct conf_policy_test, policy_path),
     .def_doc = "`--policy` of the command",
     .doc = "The Policy file."},
    {.name = "tests",
     .type = TYPE_MAP,
     .table = &table_case,
     .required = true,
     LIST_AT(struct conf_policy_test, cases, n_cases),
     .doc = "What it is expected to say."},
};
const struct table table_policy_test = {
    .name = "the file",
    .doc = "What a policy is expected to say: `postern policy test FILE` asks it.",
    .size = sizeof(struct conf_policy_test),
    FIELDS(fields_policy_test),
    .check = check_file,
};
