/* mesh_outbound: of a Mesh file, what leads to several endpoints, and who may be reached without
 * being a service. docs/outbound.md. */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

enum { HOSTS_MAX = 256, BLOCKS_MAX = 1024 }; /* of all entries: each connection looks at them */

static const char *const words_preset[] = {"none", "dns", "api-server", "metadata", NULL};

const char *conf_unlisted_class_name(enum conf_unlisted_class c)
{
    return c == CONF_UNLISTED_OTHER ? "other" : words_preset[c];
}

/* --- a service -------------------------------------------------------------------------------- */
static void check_ejection(struct context *c, const struct node *map, void *value)
{
    const struct conf_ejection *e = value;
    if (e->after > 0 && e->time_ms > 0 && e->max_time_ms < e->time_ms) {
        report(c, map, "'max_time' is not shorter than 'time'", NULL,
               "an ejection whose longest is shorter than its first");
    }
}

static const struct field fields_ejection[] = {
    {.name = "after",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000,
     .zero_word = "never",
     AT(struct conf_ejection, after),
     .def = "3",
     .doc = "So many connects or handshakes in a row that failed."},
    {.name = "time",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 3600000,
     AT(struct conf_ejection, time_ms),
     .def = "10s",
     .doc = "For how long; twice as long each time that it fails again soon after."},
    {.name = "max_time",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 86400000,
     AT(struct conf_ejection, max_time_ms),
     .def = "5m",
     .doc = "No longer than this."},
};
const struct table table_ejection = {.name = "ejection",
                                     .size = sizeof(struct conf_ejection),
                                     FIELDS(fields_ejection),
                                     .check = check_ejection};

static const struct field fields_service_limits[] = {
    {.name = "connections",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     .zero_word = "any",
     .size = sizeof(uint32_t),
     .def = "any",
     .doc = "Open ones to the service, of all workers. Further ones are reset."},
};
const struct table table_service_limits = {
    .name = "limits of a service", .size = sizeof(uint32_t), FIELDS(fields_service_limits)};

static bool has_port(const struct conf_target *t)
{
    return t->kind == CONF_TARGET_HOST ? t->port != 0 : sockaddr_port(&t->address) != 0;
}

void mesh_check_endpoints(struct context *c, const struct node *map, const struct conf_service *s)
{
    const struct node *list = node_get(map, "endpoints");
    const struct node *ejection = node_get(map, "ejection");
    if (list == NULL) {
        if (ejection != NULL) {
            report(c, ejection->key, NULL, "there is nothing else to go to",
                   "'ejection' of a service without 'endpoints'");
        }
        return;
    }
    if (s->n_endpoints > CONF_ENDPOINTS_MAX) {
        report(c, list, NULL, NULL, "more than %d endpoints", CONF_ENDPOINTS_MAX);
        return;
    }
    schema_check_unique(c, list, NULL, "endpoint");
    const struct node *e = list->child;
    for (size_t i = 0; i < s->n_endpoints; i++, e = e->next) {
        const struct conf_target *t = &s->endpoints[i];
        if (t->kind != CONF_TARGET_NONE && has_port(t) && s->n_ports != 1) {
            report(c, e, "an endpoint without a port, or one entry in 'ports'",
                   "without a port it is connected to on the port that was dialled",
                   "an endpoint with a port, of a service with %s",
                   s->n_ports == 0 ? "every port" : "several ports");
        }
        if (t->kind == CONF_TARGET_ADDRESS && sockaddr_is_any(&t->address)) {
            report(c, e, "an address that is somebody's", NULL, "an endpoint at any address");
        }
    }
}

/* --- destinations that are no service's ------------------------------------------------------- */
static void check_entry(struct context *c, const struct node *map, void *value);

static const struct field fields_unlisted[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_unlisted_entry, name),
     .doc = "Unique in the list; in logs."},
    {.name = "preset",
     .type = TYPE_WORD,
     .words = words_preset,
     AT(struct conf_unlisted_entry, preset),
     .def = "none",
     .doc = "What it is, for metrics, and what is not said below: `dns` is TCP port 53 (at "
            "`addresses`); `api-server` is ports 443 and 6443, and without `addresses` and `hosts` "
            "the host `kubernetes.default.svc`; `metadata` is the addresses at which clouds tell "
            "an instance about itself, port 80."},
    {.name = "addresses",
     .type = TYPE_CIDR,
     LIST_AT(struct conf_unlisted_entry, addresses.items, addresses.n),
     .empty_advice = "name an address, a block or a host",
     .doc = "Where it is."},
    {.name = "hosts",
     .type = TYPE_DNS_NAME,
     LIST_AT(struct conf_unlisted_entry, hosts.items, hosts.n),
     .empty_advice = "name an address, a block or a host",
     .doc = "Names whose addresses it has. What counts is what they resolve to here, and not a "
            "name that a client sends."},
    {.name = "ports",
     .type = TYPE_PORT,
     LIST_AT(struct conf_unlisted_entry, ports, n_ports),
     .def_doc = "every port, or as the preset says",
     .empty_advice = "leave 'ports' out for every port",
     .doc = "On which ports."},
};
const struct table table_unlisted_entry = {
    .name = "an entry of 'allow_unlisted'",
    .size = sizeof(struct conf_unlisted_entry),
    FIELDS(fields_unlisted),
    .check = check_entry,
};

static void set_ports(struct conf_unlisted_entry *e, const uint16_t *ports, size_t n)
{
    if (e->n_ports == 0) {
        e->ports = mem_must_calloc(n, sizeof(*e->ports));
        memcpy(e->ports, ports, n * sizeof(*e->ports));
        e->n_ports = n;
    }
}

/* One address each. AWS with its containers and pods, Google, Azure, OCI and others: the first;
 * then Azure's agent, Alibaba, Scaleway, OCI of old, and the same over IPv6. */
static const char *const metadata[] = {"169.254.169.254", "169.254.170.2",   "169.254.170.23",
                                       "168.63.129.16",   "100.100.100.200", "169.254.42.42",
                                       "192.0.0.192",     "fd00:ec2::254",   "fd00:ec2::23",
                                       "fd20:ce::254",    "fd00:42::42"};
enum { N_METADATA = sizeof(metadata) / sizeof(metadata[0]) };

static struct conf_cidr cidr_of(const char *text)
{
    struct conf_cidr c = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};
    c.prefix_len = c.family == AF_INET ? 32 : 128;
    POSTERN_ASSERT(inet_pton(c.family, text, c.addr) == 1);
    return c;
}

bool conf_is_metadata(int family, const uint8_t *addr)
{
    for (size_t i = 0; i < N_METADATA; i++) {
        struct conf_cidr c = cidr_of(metadata[i]);
        if (c.family == family && memcmp(c.addr, addr, family == AF_INET ? 4 : 16) == 0) {
            return true;
        }
    }
    return false;
}

static void fill_metadata(struct conf_unlisted_entry *e)
{
    static const uint16_t http = 80;
    set_ports(e, &http, 1);
    if (e->addresses.n == 0) {
        e->addresses.items = mem_must_calloc(N_METADATA, sizeof(*e->addresses.items));
        for (size_t i = 0; i < N_METADATA; i++) {
            e->addresses.items[e->addresses.n++] = cidr_of(metadata[i]);
        }
    }
}

static void fill_api_server(struct conf_unlisted_entry *e)
{
    static const uint16_t https[] = {443, 6443};
    set_ports(e, https, 2);
    if (e->addresses.n == 0 && e->hosts.n == 0) {
        e->hosts.items = mem_must_calloc(1, sizeof(*e->hosts.items));
        e->hosts.items[e->hosts.n++] = mem_must_strdup("kubernetes.default.svc");
    }
}

static void check_entry(struct context *c, const struct node *map, void *value)
{
    static const uint16_t domain = 53;
    struct conf_unlisted_entry *e = value;
    bool nowhere = node_get(map, "addresses") == NULL && node_get(map, "hosts") == NULL;
    switch (e->preset) {
    case CONF_UNLISTED_DNS:
        set_ports(e, &domain, 1);
        if (node_get(map, "hosts") != NULL) {
            report(c, node_get(map, "hosts")->key, NULL, "name the addresses of the resolvers",
                   "resolvers that would have to be resolved");
        }
        break;
    case CONF_UNLISTED_API_SERVER:
        fill_api_server(e);
        return;
    case CONF_UNLISTED_METADATA:
        if (node_get(map, "hosts") != NULL) {
            report(c, node_get(map, "hosts")->key, NULL, "name addresses, or none for all",
                   "metadata by name: whoever answers for it would choose the address");
        }
        fill_metadata(e);
        return;
    case CONF_UNLISTED_OTHER:
    case CONF_N_UNLISTED_CLASSES:
        break;
    }
    if (nowhere) {
        report(c, map, "addresses or hosts", "'unlisted: passthrough' means every destination",
               "an entry that says nowhere");
    }
}

void mesh_check_unlisted(struct context *c, const struct node *map, struct conf_mesh *m)
{
    const struct node *list = node_get(map, "allow_unlisted");
    size_t hosts = 0;
    size_t blocks = 0;
    if (schema_word_is(map, "unlisted", "pass")) {
        m->unlisted = CONF_UNLISTED_PASS;
    }
    if (list == NULL) {
        if (m->unlisted == CONF_UNLISTED_LIST) {
            report(c, node_get(map, "unlisted"), "a list 'allow_unlisted'",
                   "'unlisted: deny' where nothing else may be reached",
                   "'unlisted: list' without a list");
        }
        return;
    }
    const struct node *unlisted = node_get(map, "unlisted");
    if (unlisted == NULL || schema_word_is(map, "unlisted", "deny")) {
        report(c, list->key, "unlisted: list", "with 'deny' nothing is let through",
               "'allow_unlisted' without 'unlisted: list'");
    }
    schema_check_unique(c, list, "name", "entry");
    for (size_t i = 0; i < m->n_allow_unlisted; i++) {
        hosts += m->allow_unlisted[i].hosts.n;
        blocks += m->allow_unlisted[i].addresses.n;
    }
    if (hosts > HOSTS_MAX || blocks > BLOCKS_MAX) {
        report(c, list, NULL, "use address blocks", "more than %d %s in all",
               hosts > HOSTS_MAX ? (int)HOSTS_MAX : (int)BLOCKS_MAX,
               hosts > HOSTS_MAX ? "hosts" : "addresses and blocks");
    }
}
