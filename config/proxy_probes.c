/* proxy_probes: what the sidecar asks of the workload in a kubelet's place. */
#include <postern/conf.h>

#include "config_priv.h"

static const char *const words_probe_protocol[] = {"tcp", "http", "grpc", NULL};

static void check_probe(struct context *c, const struct node *map, void *value);

static const struct field fields_probe[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 100,
     .required = true,
     AT(struct conf_probe, name),
     .doc = "Unique in the file: `GET /probe/NAME` asks it."},
    {.name = "port",
     .type = TYPE_PORT,
     .required = true,
     AT(struct conf_probe, port),
     .doc = "The workload's, at the address at which the probe itself was asked."},
    {.name = "protocol",
     .type = TYPE_WORD,
     .words = words_probe_protocol,
     AT(struct conf_probe, protocol),
     .def = "tcp",
     .doc = "`tcp`: whether a connection comes about. `http`: the status of `GET path`. "
            "`grpc`: what gRPC's health service says, in plaintext: 200 for SERVING, else 503."},
    {.name = "path",
     .type = TYPE_TEXT,
     .max = 1024,
     AT(struct conf_probe, path),
     .def_doc = "`/`",
     .doc = "With `http`: what is asked for, as it stands in the request."},
    {.name = "host",
     .type = TYPE_TEXT,
     .max = 255,
     AT(struct conf_probe, host),
     .def_doc = "address and port",
     .doc = "With `http`: the Host header."},
    {.name = "headers",
     .type = TYPE_TEXT,
     .max = 512,
     LIST_AT(struct conf_probe, headers.items, headers.n),
     .doc = "With `http`: further headers, `Name: value`; 16 at most."},
    {.name = "service",
     .type = TYPE_TEXT,
     .max = 255,
     AT(struct conf_probe, service),
     .def_doc = "none: the server as a whole",
     .doc = "With `grpc`: whose health is asked for."},
};
static const struct table table_probe = {.name = "a probe",
                                         .size = sizeof(struct conf_probe),
                                         FIELDS(fields_probe),
                                         .check = check_probe};

static const struct field fields_probes[] = {
    {.name = "address",
     .type = TYPE_ADDRESS,
     .required = true,
     AT(struct conf_proxy, probes.address),
     .doc = "Where `GET /probe/NAME` is answered, with the probe's status and nothing of the "
            "workload's answer, by plain HTTP to anybody."},
    {.name = "list",
     .type = TYPE_MAP,
     .table = &table_probe,
     .required = true,
     LIST_AT(struct conf_proxy, probes.items, probes.n),
     .empty_advice = "leave 'probes' out to have none",
     .doc = "What may be asked."},
};
const struct table table_probes = {
    .name = "probes",
    .doc =
        "A kubelet asks in plaintext and without an identity, which an intercepted port does not "
        "take: `postern inject` leads its probes here. Read at the start only.",
    FIELDS(fields_probes)};

/* What ends up in a request is what one line can hold. */
static bool is_printable(struct str s, bool blanks)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if (ch < ' ' || ch >= 0x7f || (ch == ' ' && !blanks)) {
            return false;
        }
    }
    return true;
}

static bool is_header(struct str s)
{
    static const char *const ours[] = {"host", "connection", "content-length", "transfer-encoding"};
    const char *colon = memchr(s.p, ':', s.n);
    struct str name = {s.p, colon != NULL ? (size_t)(colon - s.p) : 0};
    for (size_t i = 0; i < name.n; i++) {
        char ch = name.p[i];
        if (!((ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
              ch == '-' || ch == '_')) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (str_eq_nocase(name, str_of(ours[i]))) {
            return false;
        }
    }
    return name.n > 0 && is_printable(s, true);
}

static void check_probe(struct context *c, const struct node *map, void *value)
{
    enum { HEADERS_MAX = 16 };
    struct conf_probe *p = value;
    if (p->path != NULL && (p->path[0] != '/' || !is_printable(str_of(p->path), false))) {
        report(c, node_get(map, "path"), "a path that begins with /, without blanks", NULL,
               "not the path of a request");
    }
    if (p->host != NULL && !is_printable(str_of(p->host), false)) {
        report(c, node_get(map, "host"), "a name, or a name with port", NULL, "not a host");
    }
    if (p->headers.n > HEADERS_MAX) {
        report(c, node_get(map, "headers"), NULL, NULL, "more than %d headers", HEADERS_MAX);
    }
    for (size_t i = 0; i < p->headers.n; i++) {
        if (!is_header(str_of(p->headers.items[i]))) {
            report(c, node_get(map, "headers"),
                   "`Name: value`, and not one of the connection's own", NULL, "not a header");
            break;
        }
    }
    if (p->protocol != CONF_PROBE_HTTP &&
        (p->path != NULL || p->host != NULL || p->headers.n > 0)) {
        report(c, map, NULL, "say 'protocol: http', or remove them",
               "a path, host or headers of a probe that is not 'http'");
    }
    if (p->protocol != CONF_PROBE_GRPC && p->service != NULL) {
        report(c, node_get(map, "service"), NULL, "say 'protocol: grpc', or remove it",
               "a service of a probe that is not 'grpc'");
    }
}

void probes_check(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    enum { PROBES_MAX = 128 };
    const struct node *probes = node_get(map, "probes");
    const struct node *list = node_get(probes, "list");
    if (p->probes.n > PROBES_MAX) {
        report(c, list, NULL, NULL, "more than %d probes", PROBES_MAX);
    } else if (p->probes.n > 0) {
        schema_check_unique(c, list, "name", "probe");
    }
}
