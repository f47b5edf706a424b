/* mesh: the table of a Mesh file; no address and port may belong to two services. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

/* As enum conf_transport. */
const char *const words_transport[] = {"direct", "disable", "hbone", "auto", NULL};
static const char *const words_unlisted[] = {"deny", "passthrough", "list", "pass", NULL};

static void check_service(struct context *c, const struct node *map, void *value);

static const struct field fields_service[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .required = true,
     AT(struct conf_service, name),
     .doc = "Unique in the file; in logs."},
    {.name = "addresses",
     .type = TYPE_CIDR,
     .required = true,
     LIST_AT(struct conf_service, addresses.items, addresses.n),
     .empty_advice = "name the addresses where the service is",
     .doc = "Where it is. The longest prefix that holds a destination counts."},
    {.name = "ports",
     .type = TYPE_MAP,
     .table = &table_port,
     LIST_AT(struct conf_service, ports, n_ports),
     .def_doc = "every port, as `tcp`",
     .empty_advice = "leave 'ports' out for every port",
     .doc = "Which of its ports belong to the service."},
    {.name = "identities",
     .type = TYPE_SPIFFE_ID,
     LIST_AT(struct conf_service, identities.items, identities.n),
     .empty_advice = "name them, or say 'transport: disable' to reach it in plaintext",
     .doc = "Whom to expect there: the server shows one of them, or there is no connection. "
            "Required unless `transport` is `disable`."},
    {.name = "transport",
     .type = TYPE_WORD,
     .words = words_transport,
     AT(struct conf_service, transport),
     .def = "direct",
     .doc = "`direct`: one mTLS connection each. `hbone`: streams of shared mTLS connections to "
            "`hbone_port` (HTTP/2 CONNECT), as Istio's ambient mesh speaks it. `auto`: `hbone` "
            "where that is known to be taken, else `direct`; never plaintext. `disable`: "
            "plaintext; nobody is verified, and metrics say so."},
    {.name = "hbone_port",
     .type = TYPE_PORT,
     AT(struct conf_service, hbone_port),
     .def_doc = "15008",
     .doc = "Where it takes HBONE, with `transport: hbone` or `auto`. With `auto` a named port "
            "says that it does; without one that is tried and learned."},
    EXPIRY_FIELDS(struct conf_service, expiry, NULL, NULL, NULL, "the outbound listener's"),
    {.name = "endpoints",
     .type = TYPE_ENDPOINT,
     LIST_AT(struct conf_service, endpoints, n_endpoints),
     .def_doc = "the address that was dialled",
     .empty_advice = "leave 'endpoints' out to connect to the address that was dialled",
     .doc = "Where connections really go, one of them each: `addresses` are then only what "
            "clients dial. Without a port: the one that was dialled. Names are looked up again and "
            "again, outside the workers. Whichever is chosen has to show one of `identities`."},
    {.name = "ejection",
     .type = TYPE_MAP,
     .table = &table_ejection,
     AT(struct conf_service, ejection),
     .doc = "When an endpoint that fails is left out for a while."},
    {.name = "limits",
     .type = TYPE_MAP,
     .table = &table_service_limits,
     AT(struct conf_service, limits),
     .doc = "How much of it this proxy takes."},
};
static const struct table table_service = {
    .name = "a service",
    .size = sizeof(struct conf_service),
    FIELDS(fields_service),
    .check = check_service,
};

static void check_mesh(struct context *c, const struct node *map, void *value);

static const struct field fields_mesh[] = {
    KIND_FIELDS("Mesh"),
    {.name = "unlisted",
     .type = TYPE_WORD,
     .words = words_unlisted,
     AT(struct conf_mesh, unlisted),
     .def = "deny",
     .doc = "Destinations that are no service's. `deny`: refused. `passthrough` (or `pass`): "
            "forwarded as plain TCP, and counted. `list`: those that `allow_unlisted` names are. "
            "Addresses of instance metadata are refused in each, unless they are named."},
    {.name = "allow_unlisted",
     .type = TYPE_MAP,
     .table = &table_unlisted_entry,
     LIST_AT(struct conf_mesh, allow_unlisted, n_allow_unlisted),
     .empty_advice = "say 'unlisted: deny' to reach nothing but services",
     .doc = "Who may be reached in plaintext without being a service; not with `unlisted: deny`."},
    {.name = "services",
     .type = TYPE_MAP,
     .table = &table_service,
     .may_be_empty = true,
     LIST_AT(struct conf_mesh, services, n_services),
     .doc = "Who lives where."},
};
const struct table table_mesh = {
    .name = "the file",
    .doc = "The mesh map: which identities live at which address, and how they are reached. Named "
           "by `mesh` in a Proxy.",
    .size = sizeof(struct conf_mesh),
    FIELDS(fields_mesh),
    .check = check_mesh,
};

void listener_transport_check(struct context *c, const struct node *map,
                              const struct conf_listener *l)
{
    const struct node *transport = node_get(map, "transport");
    const struct node *hbone_port = node_get(map, "hbone_port");
    bool outbound = schema_word_is(map, "direction", "outbound");
    if (!outbound || !schema_word_is(map, "capture", "explicit")) {
        const char *what = outbound ? "an intercepted listener" : "an inbound listener";
        const char *advice = outbound ? "it is said in the mesh map" : "its peers choose";
        schema_refuse_key(c, map, "transport", what, advice);
        schema_refuse_key(c, map, "hbone_port", what, advice);
    } else if (transport != NULL && schema_word_is(map, "transport", "disable")) {
        report(c, transport, "direct, hbone or auto", NULL,
               "an explicit listener with 'transport: disable'");
    } else if (hbone_port != NULL && l->transport == CONF_TRANSPORT_DIRECT) {
        report(c, hbone_port->key, NULL,
               "remove 'hbone_port', or say 'transport: hbone' or 'transport: auto'",
               "with 'transport: direct' no HBONE is spoken");
    }
}

static void check_service(struct context *c, const struct node *map, void *value)
{
    struct conf_service *s = value;
    const struct node *identities = node_get(map, "identities");
    const struct node *transport = node_get(map, "transport");
    const struct node *hbone_port = node_get(map, "hbone_port");
    bool disabled = s->transport == CONF_TRANSPORT_DISABLE;
    bool takes_hbone = s->transport == CONF_TRANSPORT_HBONE || s->transport == CONF_TRANSPORT_AUTO;
    const char *word = words_transport[s->transport];
    expiry_check(c, map, &s->expiry);
    if (disabled) {
        schema_refuse_key(c, map, "on_expiry", "a service with 'transport: disable'",
                          "there are no certificates that could end");
    }
    if (disabled && identities != NULL) {
        report(c, identities->key, NULL,
               "remove 'identities', or say 'transport: direct' to have them verified",
               "with 'transport: disable' nobody's identity is verified");
    }
    bool known = transport == NULL ||
                 (transport->kind == NODE_SCALAR && str_eq(transport->text, str_of(word)));
    if (known && !takes_hbone && hbone_port != NULL) {
        report(c, hbone_port->key, NULL,
               "remove 'hbone_port', or say 'transport: hbone' or 'transport: auto'",
               "with 'transport: %s' no HBONE is spoken", word);
    }
    if (known && !disabled && identities == NULL) {
        report(c, map, "the SPIFFE IDs that may answer there",
               "'transport: disable' reaches it in plaintext",
               "missing key 'identities' of a service with 'transport: %s'", word);
    }
    schema_check_unique(c, node_get(map, "ports"), "port", "port");
    mesh_check_endpoints(c, map, s);
}

/* One address block and port of one service. */
struct place {
    struct conf_cidr cidr;
    uint32_t port; /* 0: all */
    uint32_t service;
    const struct node *at;
};

static int compare_places(const void *pa, const void *pb)
{
    const struct place *a = pa;
    const struct place *b = pb;
    if (a->cidr.family != b->cidr.family) {
        return a->cidr.family < b->cidr.family ? -1 : 1;
    }
    int r = memcmp(a->cidr.addr, b->cidr.addr, sizeof(a->cidr.addr));
    if (r != 0) {
        return r;
    }
    if (a->cidr.prefix_len != b->cidr.prefix_len) {
        return a->cidr.prefix_len < b->cidr.prefix_len ? -1 : 1;
    }
    if (a->port != b->port) {
        return a->port < b->port ? -1 : 1;
    }
    if (a->service != b->service) {
        return a->service < b->service ? -1 : 1;
    }
    return a->at->line < b->at->line ? -1 : a->at->line > b->at->line;
}

static bool same_place(const struct place *a, const struct place *b)
{
    return a->cidr.family == b->cidr.family && a->cidr.prefix_len == b->cidr.prefix_len &&
           a->port == b->port && memcmp(a->cidr.addr, b->cidr.addr, sizeof(a->cidr.addr)) == 0;
}

static void add_places(const struct conf_service *s, const struct node *map, uint32_t service,
                       struct place *places, size_t *n)
{
    const struct node *at = node_get(map, "addresses")->child;
    for (size_t i = 0; i < s->addresses.n; i++, at = at->next) {
        struct place p = {.cidr = s->addresses.items[i], .service = service, .at = at};
        if (p.cidr.family == 0) {
            continue; /* reported */
        }
        if (s->n_ports == 0) {
            places[(*n)++] = p;
        }
        for (size_t k = 0; k < s->n_ports; k++) {
            p.port = s->ports[k].port;
            places[(*n)++] = p;
        }
    }
}

static void report_overlap(struct context *c, const struct conf_mesh *m, const struct place *first,
                           const struct place *second)
{
    struct shown s;
    struct shown address;
    const char *other = m->services[first->service].name;
    show(&s, str_of(other != NULL ? other : "?"));
    show(&address, second->at->text);
    if (first->service == second->service) {
        report(c, second->at, NULL, "keep one", "address %s twice in one service", address.text);
    } else if (second->port == 0) {
        report(c, second->at, "one service for each address and port", NULL,
               "address %s belongs to service %s already", address.text, s.text);
    } else {
        report(c, second->at, "one service for each address and port", NULL,
               "port %u of address %s belongs to service %s already", second->port, address.text,
               s.text);
    }
}

static void check_mesh(struct context *c, const struct node *map, void *value)
{
    enum { PLACES_MAX = 1 << 18 };
    struct conf_mesh *m = value;
    const struct node *list = node_get(map, "services");
    schema_check_unique(c, list, "name", "service");
    mesh_check_unlisted(c, map, m);
    size_t total = 0;
    for (size_t i = 0; i < m->n_services; i++) {
        const struct conf_service *s = &m->services[i];
        total += s->addresses.n * (s->n_ports > 0 ? s->n_ports : 1);
    }
    if (total > PLACES_MAX) {
        report(c, list, NULL, "use address blocks, or leave 'ports' out",
               "more than %d pairs of address and port", PLACES_MAX);
        return;
    }
    if (total == 0) {
        return;
    }
    mem_autofree struct place *places = mem_must_calloc(total, sizeof(*places));
    size_t n = 0;
    const struct node *e = list->child;
    for (size_t i = 0; i < m->n_services; i++, e = e->next) {
        if (m->services[i].addresses.n > 0) {
            add_places(&m->services[i], e, (uint32_t)i, places, &n);
        }
    }
    qsort(places, n, sizeof(*places), compare_places);
    size_t first = 0;
    for (size_t i = 1; i < n; i++) {
        if (!same_place(&places[first], &places[i])) {
            first = i;
        } else if (places[i].service != places[i - 1].service || places[i].at != places[i - 1].at) {
            report_overlap(c, m, &places[first], &places[i]);
        }
    }
}
