/* record: a line of a log to the question that was decided there. */
#include <postern/policy_record.h>

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 256 * 1024, CUT_AT_LEAST = 1024, PAIRS_MAX = 256 };

static const char *text_of(const json_t *line, const char *key)
{
    return json_string_value(json_object_get(line, key));
}

static bool is_word(const json_t *line, const char *key, const char *word)
{
    const char *text = text_of(line, key);
    return text != NULL && strcmp(text, word) == 0;
}

/* "10.0.0.1:4711", "[::1]:4711"; false: something else, such as a Unix socket's client. */
static bool parse_source(const char *text, struct sockaddr_storage *ret)
{
    char host[INET6_ADDRSTRLEN + 1];
    const char *from = text[0] == '[' ? text + 1 : text;
    const char *to = text[0] == '[' ? strchr(from, ']') : strrchr(from, ':');
    size_t n = to != NULL ? (size_t)(to - from) : strlen(from);
    if (n == 0 || n >= sizeof(host)) {
        return false;
    }
    memcpy(host, from, n);
    host[n] = '\0';
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    *ret = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(ret, &v4, sizeof(v4));
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(ret, &v6, sizeof(v6));
        return true;
    }
    return false;
}

/* Reasons of the audit log that are no answer of a policy. */
static bool is_of_policy(const json_t *line, bool request)
{
    static const char *const others[] = {"quarantined",  "not_http",      "protocol_unknown",
                                         "rate_limited", "token_refused", "connect_target"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (is_word(line, "reason", others[i])) {
            return false;
        }
    }
    return request || !is_word(line, "transport", "hbone_session");
}

/* [[name, value], ...], and nothing else: NULL. */
static struct policy_header *take_pairs(const json_t *line, const char *key, size_t *ret_n)
{
    const json_t *list = json_object_get(line, key);
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > PAIRS_MAX) {
        return NULL;
    }
    struct policy_header *items = mem_must_calloc(n + 1, sizeof(*items));
    for (size_t i = 0; i < n; i++) {
        const json_t *name = json_array_get(json_array_get(list, i), 0);
        const json_t *value = json_array_get(json_array_get(list, i), 1);
        if (!json_is_string(name) || !json_is_string(value)) {
            free(items);
            return NULL;
        }
        items[i] = (struct policy_header){{json_string_value(name), json_string_length(name)},
                                          {json_string_value(value), json_string_length(value)}};
    }
    *ret_n = n;
    return items;
}

static void take_fields(const json_t *line, struct policy_record *r)
{
    r->header_items = take_pairs(line, "headers", &r->headers.n);
    r->headers.items = r->header_items;
    r->query.headers = r->header_items != NULL ? &r->headers : NULL;
    r->claim_items = take_pairs(line, "claims", &r->claims.n);
    r->claims.items = r->claim_items;
    r->query.claims = r->claim_items != NULL ? &r->claims : NULL;
    r->query.query = str_of(text_of(line, "query"));
}

static bool take_request(const json_t *line, struct policy_record *r)
{
    r->query.http = true;
    r->query.method = str_of(text_of(line, "method"));
    r->query.host = str_of(text_of(line, "host"));
    r->query.path = str_of(text_of(line, "path"));
    r->path_cut = r->query.path.n >= CUT_AT_LEAST && str_has_suffix(r->query.path, STR_LIT("..."));
    r->query.grpc = json_is_true(json_object_get(line, "grpc"));
    take_fields(line, r);
    return r->query.method.n > 0 && r->query.path.n > 0;
}

static enum policy_record_kind take(json_t *line, struct policy_record *r)
{
    bool request = is_word(line, "event", "request");
    const char *verdict = text_of(line, "verdict");
    if ((!request && !is_word(line, "event", "connection")) || verdict == NULL ||
        is_word(line, "direction", "outbound") || !is_of_policy(line, request)) {
        return POLICY_RECORD_OTHER;
    }
    json_int_t port = json_integer_value(json_object_get(line, "port"));
    const char *source = text_of(line, "source");
    r->allowed = strcmp(verdict, "allow") == 0;
    r->rule = text_of(line, "rule");
    r->decision = text_of(line, "decision");
    r->ts = text_of(line, "ts");
    r->query.target = str_of(text_of(line, "own_id"));
    r->query.peer = str_of(text_of(line, "peer_id"));
    r->query.port = port > 0 && port <= UINT16_MAX ? (uint16_t)port : 0;
    if (source != NULL && parse_source(source, &r->source)) {
        r->query.source = (const struct sockaddr *)&r->source;
    }
    bool known =
        (r->allowed || strcmp(verdict, "deny") == 0) && r->query.port != 0 && r->query.target.n > 0;
    return known && (!request || take_request(line, r)) ? POLICY_RECORD_DECISION
                                                        : POLICY_RECORD_BAD;
}

enum policy_record_kind policy_record_parse(struct str line, struct policy_record *ret)
{
    if (line.n == 0 || line.n > LINE_MAX_BYTES) {
        return line.n == 0 ? POLICY_RECORD_OTHER : POLICY_RECORD_BAD;
    }
    json_t *json = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return POLICY_RECORD_BAD;
    }
    *ret = (struct policy_record){.line = json};
    enum policy_record_kind kind = take(json, ret);
    if (kind != POLICY_RECORD_DECISION) {
        policy_record_deinit(ret);
    }
    return kind;
}

void policy_record_deinit(struct policy_record *r)
{
    free(r->header_items);
    free(r->claim_items);
    r->header_items = r->claim_items = NULL;
    json_decref(r->line);
    r->line = NULL;
}
