/* gateway_listener: the table of a Gateway's listener, and which keys go with which type. What a
 * listener names elsewhere in the file is looked up in gateway.c. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdio.h>
#include <string.h>

#include "config_priv.h"

enum {
    ROUTES_MAX = 256,
    CREDENTIALS_MAX = 16,
    USER_MAX = 255,
    URL_MAX = 1024,
    ID_TLV_ZTUNNEL = 0xd0, /* the one between the two ranges that is in use */
    ID_TLV_PRIVATE = 0xe0,
};

static const char *const words_type[] = {"server", "client", "relay", NULL};
static const char *const words_certificate[] = {"required", "none", NULL};

/* --- SNI routes ------------------------------------------------------------------------------- */
static void check_route(struct context *c, const struct node *map, void *value);

static const struct field fields_route[] = {
    {.name = "names",
     .type = TYPE_DNS_PATTERN,
     .required = true,
     LIST_AT(struct conf_sni_route, names.items, names.n),
     .empty_advice = "name the servers that this route is for",
     .doc = "Server names that clients ask for. An exact name goes before a wildcard, a longer "
            "wildcard before a shorter."},
    {.name = "to",
     .type = TYPE_TARGET,
     AT(struct conf_sni_route, to),
     .def_doc = "the listener's",
     .doc = "Where it connects."},
    {.name = "credentials",
     .type = TYPE_NAME,
     LIST_AT(struct conf_sni_route, credentials.items, credentials.n),
     .def_doc = "the listener's",
     .doc = "The certificates for these names."},
    {.name = "passthrough",
     .type = TYPE_BOOL,
     AT(struct conf_sni_route, passthrough),
     .def = "false",
     .doc = "`true`: the connection goes on as it came, and TLS is between the client and the "
            "target; the gateway sees nobody's identity."},
};
static const struct table table_route = {
    .name = "a route",
    .size = sizeof(struct conf_sni_route),
    FIELDS(fields_route),
    .check = check_route,
};

static void check_route(struct context *c, const struct node *map, void *value)
{
    const struct conf_sni_route *r = value;
    if (r->passthrough) {
        schema_refuse_key(c, map, "credentials", "a route with 'passthrough: true'",
                          "TLS is not terminated here");
    }
}

/* --- the upstream leg of a relay -------------------------------------------------------------- */
static bool check_connect_proxy(struct context *c, const struct field *f, const struct node *n)
{
    struct conf_connect_proxy proxy;
    (void)f; /* it may hold a password, so what is refused is not shown */
    if (!str_has_prefix(n->text, STR_LIT("http://"))) {
        report(c, n, "http://[USER:PASSWORD@]HOST:PORT", "CONNECT is spoken to it in the clear",
               "'connect_proxy' is no http:// URL");
        return false;
    }
    if (!conf_connect_proxy_parse(n->text, &proxy)) {
        report(c, n, "http://[USER:PASSWORD@]HOST:PORT", NULL, "'connect_proxy' cannot be read");
        return false;
    }
    return true;
}

/* The keys of the leg that dials, of a client listener and under `upstream`. */
#define DIAL_FIELDS(base, in, self, said)                                                          \
    {.name = "server_name",                                                                        \
     .type = TYPE_DNS_NAME,                                                                        \
     AT(base, in server_name),                                                                     \
     .def_doc = "the host of `to`, if it is a name",                                               \
     .doc = said "The server name that it asks for (SNI)."},                                       \
        {.name = "identities",                                                                     \
         .type = TYPE_SPIFFE_ID,                                                                   \
         LIST_AT(base, in identities.items, in identities.n),                                      \
         .empty_advice = "name the identities that the server may have",                           \
         .doc = said "Where trust is in SPIFFE bundles, and required there: whom it must find at " \
                     "`to`."},                                                                     \
        {.name = "verify",                                                                         \
         .type = TYPE_MAP,                                                                         \
         .table = &table_peer_verify,                                                              \
         .offset = (self),                                                                         \
         .def_doc = "`dns`: `server_name`, or the address of `to`",                                \
         .doc = said "Where trust is in ordinary CAs: the names that the server's certificate "    \
                     "must show."},                                                                \
        {.name = "connect_proxy",                                                                  \
         .type = TYPE_TEXT,                                                                        \
         .max = URL_MAX,                                                                           \
         .check = check_connect_proxy,                                                             \
         .secret = true,                                                                           \
         AT(base, in connect_proxy),                                                               \
         .def_doc = "none",                                                                        \
         .doc = said "An HTTP proxy, `http://[USER:PASSWORD@]HOST:PORT`, that is asked to "        \
                     "CONNECT to `to`."}

/* The keys of any leg. */
#define LEG_FIELDS(base, in, self)                                                                 \
    {.name = "credentials",                                                                        \
     .type = TYPE_NAME,                                                                            \
     LIST_AT(base, in credentials.items, in credentials.n),                                        \
     .none_word = "none",                                                                          \
     .none_offset = offsetof(base, in no_credentials),                                             \
     .def_doc = "`identity`",                                                                      \
     .doc = "Own certificates, by name. A server shows the one that has the name which the "       \
            "client asks for, else the first. `none`, where it dials: no certificate is sent."},   \
        {.name = "trust",                                                                          \
         .type = TYPE_NAME,                                                                        \
         AT(base, in trust),                                                                       \
         .def_doc = "the bundles that come with `identity`",                                       \
         .doc = "What the peer's certificate must lead to, by name."},                             \
        {.name = "tls",                                                                            \
         .type = TYPE_MAP,                                                                         \
         .table = &table_leg_tls,                                                                  \
         .offset = (self),                                                                         \
         .doc = "How TLS is spoken."}

static const struct field fields_upstream[] = {
    LEG_FIELDS(struct conf_tls_side, , 0),
    DIAL_FIELDS(struct conf_tls_side, , 0, ""),
    {.name = "transport",
     .type = TYPE_WORD,
     .words = words_transport,
     AT(struct conf_tls_side, transport),
     .def = "direct",
     .doc = "How it reaches `to`, as of a client; not `disable`."},
    {.name = "hbone_port",
     .type = TYPE_PORT,
     AT(struct conf_tls_side, hbone_port),
     .def_doc = "15008",
     .doc = "With `transport: hbone` or `auto`: where the addresses of `to` take HBONE."},
};
static const struct table table_upstream = {.name = "upstream", FIELDS(fields_upstream)};

/* --- the listener ----------------------------------------------------------------------------- */
static const struct field fields_socket[] = {
    {.name = "mode",
     .type = TYPE_MODE,
     AT(struct conf_listener, socket.mode),
     .def = "0600",
     .doc = "Who may connect needs the right to write."},
    {.name = "owner",
     .type = TYPE_TEXT,
     .max = USER_MAX,
     AT(struct conf_listener, socket.owner),
     .def_doc = "the process's own",
     .doc = "A user, by name or number."},
    {.name = "group",
     .type = TYPE_TEXT,
     .max = USER_MAX,
     AT(struct conf_listener, socket.group),
     .def_doc = "the process's own",
     .doc = "A group, by name or number."},
};
static const struct table table_socket = {.name = "socket", FIELDS(fields_socket)};

static const struct field fields_limits[] = {
    {.name = "connections",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     AT(struct conf_listener, limits.connections),
     .def_doc = "none but that of the process",
     .doc = "Open downstream connections of this listener."},
    {.name = "connect_rate",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     AT(struct conf_listener, limits.connect_rate),
     .def_doc = "any",
     .doc = "New connections a second; what is beyond is reset."},
    {.name = "connect_burst",
     .type = TYPE_UINT,
     .min = 1,
     .max = 1000000,
     AT(struct conf_listener, limits.connect_burst),
     .def_doc = "`connect_rate`",
     .doc = "How many may come at once after a quiet time."},
    {.name = "lifetime",
     .type = TYPE_DURATION_S,
     .min = 1,
     .max = 8760 * 3600,
     AT(struct conf_listener, limits.lifetime_s),
     .def_doc = "any",
     .doc =
         "How long a connection may be open, whatever is going on in it; then both sides see its "
         "end. Of connections that come after a change of it."},
    IDENTITY_LIMIT_FIELDS,
};
static const struct table table_listener_limits = {.name = "limits", FIELDS(fields_limits)};

static void check_listener(struct context *c, const struct node *map, void *value);

#define FLAT offsetof(struct conf_listener, downstream)

static const struct field fields_listener[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     .required = true,
     AT(struct conf_listener, name),
     .doc = "Unique in the file; in logs and metrics."},
    {.name = "type",
     .type = TYPE_WORD,
     .words = words_type,
     .required = true,
     AT(struct conf_listener, type),
     .doc = "`server`: mTLS in, plain out. `client`: plain in, mTLS out. `relay`: mTLS in, mTLS "
            "out."},
    {.name = "address",
     .type = TYPE_LISTEN,
     .required = true,
     AT(struct conf_listener, bind),
     .doc = "Where it listens. `systemd` takes the descriptor of the listener's own name, "
            "`systemd:NAME` that of another, from socket activation."},
    {.name = "socket",
     .type = TYPE_MAP,
     .table = &table_socket,
     .doc = "Who may connect, where `address` is a Unix socket."},
    {.name = "to",
     .type = TYPE_TARGET,
     LIST_AT(struct conf_listener, targets, n_targets),
     .may_be_single = true,
     .doc = "Where it connects. Required where `sni` does not say it for every name; without it "
            "other names are refused. A list, client and relay only: each connection goes to one "
            "of them (docs/gateway.md), and whichever it is has to show one of `identities`."},
    {.name = "protocol",
     .type = TYPE_WORD,
     .words = words_protocol,
     AT(struct conf_listener, protocol),
     .def = "tcp",
     .doc = "Server and relay only: what is spoken. With `http` each request is judged."},
    LEG_FIELDS(struct conf_listener, downstream., FLAT),
    {.name = "client_certificate",
     .type = TYPE_WORD,
     .words = words_certificate,
     AT(struct conf_listener, client_certificate),
     .def = "required",
     .doc = "Server and relay only. `none`: clients are not asked who they are; policy sees a peer "
            "without identity."},
    {.name = "allow",
     .type = TYPE_MAP,
     .table = &table_peer_allow,
     .offset = FLAT,
     .def_doc = "none: the policy alone decides",
     .doc = "Server and relay only: who may come in at all, by names in the certificate. Where "
            "the file has a policy, both must let in; without either the file is refused."},
    {.name = "sni",
     .type = TYPE_MAP,
     .table = &table_route,
     LIST_AT(struct conf_listener, sni, n_sni),
     .doc = "Server and relay only: other targets and certificates by the server name that the "
            "client asks for."},
    {.name = "proxy_protocol",
     .type = TYPE_WORD,
     .words = words_proxy_protocol,
     AT(struct conf_listener, proxy_protocol),
     .def = "none",
     .doc = "Server only: the header that tells the target who its client is. `v2-tls` adds what "
            "the client's certificate says, `v2-tls-full` the certificate."},
    {.name = "proxy_protocol_id_tlv",
     .type = TYPE_UINT,
     .min = 208,
     .max = 239,
     AT(struct conf_listener, proxy_protocol_id_tlv),
     .def = "208",
     .doc = "With `v2` and its like: the type of the TLV that holds the peer's SPIFFE ID: 208 "
            "(0xD0), where ztunnel puts it, or one of the private range, 224 to 239."},
    PROXY_PROTOCOL_IN_FIELDS(""),
    DIAL_FIELDS(struct conf_listener, downstream., FLAT, "Client only. "),
    {.name = "check",
     .type = TYPE_MAP,
     .table = &table_target_check,
     AT(struct conf_listener, check),
     .def_doc = "as `targets` says",
     .doc = "How its target is checked."},
    {.name = "ejection",
     .type = TYPE_MAP,
     .table = &table_ejection,
     AT(struct conf_listener, ejection),
     .doc = "Client and relay only, with several `to`: when one that fails is left out for a "
            "while."},
    {.name = "transport",
     .type = TYPE_WORD,
     .words = words_transport,
     AT(struct conf_listener, downstream.transport),
     .def = "direct",
     .doc = "Client: how it reaches `to`, as in a Mesh file; not `disable`. Server and relay: "
            "`hbone`: clients come as streams of HBONE connections and not otherwise "
            "(docs/hbone.md)."},
    {.name = "hbone_port",
     .type = TYPE_PORT,
     AT(struct conf_listener, downstream.hbone_port),
     .def_doc = "15008",
     .doc = "Client only, with `transport: hbone` or `auto`: where the addresses of `to` take "
            "HBONE."},
    {.name = "allow_remote_clients",
     .type = TYPE_BOOL,
     AT(struct conf_listener, allow_remote_clients),
     .def = "false",
     .doc = "Client only: `true` lets it stand on an address that other machines reach. Whoever "
            "reaches it speaks with this gateway's certificate."},
    {.name = "upstream",
     .type = TYPE_MAP,
     .table = &table_upstream,
     .offset = offsetof(struct conf_listener, upstream),
     .doc = "Relay only, and required there: the leg that dials."},
    HTTP_FIELDS(struct conf_listener, http, "Server and relay only. "),
    {.name = "limits",
     .type = TYPE_MAP,
     .table = &table_listener_limits,
     .doc = "How much it takes."},
    EXPIRY_FIELDS(struct conf_listener, expiry, "drain", EXPIRY_GRACE, EXPIRY_SPREAD, NULL),
    PERMISSIVE_FIELDS(struct conf_listener, permissive, "Server only. "),
};
const struct table table_gateway_listener = {
    .name = "a listener",
    .doc = "Which keys a listener takes depends on `type`.",
    .size = sizeof(struct conf_listener),
    FIELDS(fields_listener),
    .check = check_listener,
};

/* --- which keys go with which type ------------------------------------------------------------ */
enum { SERVER = 1, CLIENT = 2, RELAY = 4 };

static const struct {
    const char *key;
    unsigned types;
    const char *advice, *advice_relay;
} keys_of_types[] = {
    {"protocol", SERVER | RELAY,
     "requests are judged where they arrive; this one passes on what its "
     "clients say",
     NULL},
    {"client_certificate", SERVER | RELAY, "its clients speak in the clear", NULL},
    {"allow", SERVER | RELAY,
     "its clients have no certificates; 'socket' or the address says who "
     "can connect",
     NULL},
    {"sni", SERVER | RELAY, "'server_name' is the name that it asks for", NULL},
    {"proxy_protocol", SERVER, "a server that speaks TLS sees who connects to it",
     "a server that speaks TLS sees who connects to it"},
    {"proxy_protocol_pass", SERVER, "a server that speaks TLS gets no header",
     "a server that speaks TLS gets no header"},
    {"ejection", CLIENT | RELAY, "it has one target", NULL},
    {"hbone_port", CLIENT, "its clients choose", "say it under 'upstream'"},
    {"server_name", CLIENT, "its target speaks in the clear", "say it under 'upstream'"},
    {"identities", CLIENT, "who may come in is said in the policy, or by 'allow'",
     "say it under 'upstream'; who may come in is said in the policy, or by 'allow'"},
    {"verify", CLIENT, "who may come in is said by 'allow'",
     "say it under 'upstream'; who may come in is said by 'allow'"},
    {"connect_proxy", CLIENT, "its target is reached in the clear", "say it under 'upstream'"},
    {"allow_remote_clients", CLIENT, "its clients show certificates",
     "its clients show certificates"},
    {"upstream", RELAY, "only a relay has two legs with TLS", NULL},
    {"mode", SERVER, "its clients speak in the clear", "a relay speaks with certificates only"},
};

static void check_types(struct context *c, const struct node *map, unsigned type)
{
    const char *what = type == SERVER   ? "a server listener"
                       : type == CLIENT ? "a client listener"
                                        : "a relay";
    for (size_t i = 0; i < sizeof(keys_of_types) / sizeof(keys_of_types[0]); i++) {
        if ((keys_of_types[i].types & type) == 0) {
            schema_refuse_key(c, map, keys_of_types[i].key, what,
                              type == RELAY ? keys_of_types[i].advice_relay
                                            : keys_of_types[i].advice);
        }
    }
    if (type == RELAY) {
        schema_require_key(c, map, "upstream", what,
                           "a mapping: whom it meets at 'to', and as whom");
    }
}

/* --- what else belongs together --------------------------------------------------------------- */
static void check_reach(struct context *c, const struct node *map, const struct conf_listener *l)
{
    const struct node *address = node_get(map, "address");
    if (!l->allow_remote_clients && l->bind.kind == CONF_BIND_ADDRESS && l->bind.address.len > 0 &&
        !sockaddr_is_loopback(&l->bind.address)) {
        report(c, address, "a loopback address or a Unix socket",
               "whoever reaches it speaks with this gateway's certificate; 'allow_remote_clients: "
               "true' says that this is meant",
               "a client listener that other machines can reach");
    }
}

static void check_alpn(struct context *c, const struct node *at, const struct conf_tls *tls)
{
    const struct node *map = at != NULL ? node_get(at, "tls") : NULL;
    const struct node *list = map != NULL ? node_get(map, "alpn") : NULL;
    const struct node *n = list != NULL ? list->child : NULL;
    for (size_t i = 0; i < tls->alpn.n && n != NULL; i++, n = n->next) {
        if (tls->alpn.items[i] != NULL && strcmp(tls->alpn.items[i], "http/1.1") != 0 &&
            strcmp(tls->alpn.items[i], "h2") != 0) {
            struct shown s;
            report(c, n, "http/1.1 or h2",
                   "say 'protocol: tcp' to let other protocols through unread",
                   "'protocol: http' reads HTTP/1.1 and HTTP/2, not %s",
                   show(&s, str_of(tls->alpn.items[i])));
        }
    }
}

static void check_sni(struct context *c, const struct node *map, const struct conf_listener *l)
{
    const struct node *list = node_get(map, "sni");
    const struct node *n = list != NULL ? list->child : NULL;
    size_t total = 0;
    if (l->n_sni > ROUTES_MAX) {
        report(c, list, NULL, NULL, "more than %d routes", ROUTES_MAX);
        return;
    }
    for (const struct node *r = n; r != NULL; r = r->next) {
        const struct node *names = node_get(r, "names");
        total += names != NULL && names->kind == NODE_LIST ? names->n : 0;
        if (node_get(map, "to") == NULL && node_get(r, "to") == NULL && r->kind == NODE_MAP) {
            report(c, r, "an address, a host or a Unix socket to connect to", NULL,
                   "a route without 'to' of a listener without 'to'");
        }
    }
    mem_autofree const struct node **all = mem_must_calloc(total + 1, sizeof(*all));
    total = 0;
    for (const struct node *r = n; r != NULL; r = r->next) {
        const struct node *names = node_get(r, "names");
        for (const struct node *e = names != NULL ? names->child : NULL; e != NULL; e = e->next) {
            if (e->kind == NODE_SCALAR) {
                all[total++] = e;
            }
        }
    }
    schema_check_unique_nodes(c, all, total, "server name");
}

static void check_server_side(struct context *c, const struct node *map,
                              const struct conf_listener *l)
{
    if (l->client_certificate == CONF_CLIENT_CERTIFICATE_NONE) {
        const char *what = "a listener with 'client_certificate: none'";
        schema_refuse_key(c, map, "trust", what, "it asks nobody for a certificate");
        if (node_get(map, "allow") != NULL && !l->downstream.allow.any) {
            report(c, node_get(map, "allow")->key, "'any: true'",
                   "it asks nobody for a certificate", "%s has no names to allow", what);
        }
    }
    if (l->downstream.no_credentials) {
        report(c, node_get(map, "credentials"), "the names of credentials",
               "whoever accepts TLS shows a certificate", "'credentials' is 'none'");
    }
}

static bool is_list_longer(const struct node *map, const char *key, size_t max)
{
    const struct node *n = map != NULL ? node_get(map, key) : NULL;
    return n != NULL && n->kind == NODE_LIST && n->n > max;
}

static void check_listener(struct context *c, const struct node *map, void *value)
{
    struct conf_listener *l = value;
    const struct node *sni = node_get(map, "sni");
    unsigned type = schema_word_is(map, "type", "server")   ? SERVER
                    : schema_word_is(map, "type", "client") ? CLIENT
                    : schema_word_is(map, "type", "relay")  ? RELAY
                                                            : 0;
    expiry_check(c, map, &l->expiry);
    http_check(c, map, &l->http);
    permissive_check(c, map, &l->permissive);
    permissive_check_server(c, map, l);
    l->capture = CONF_EXPLICIT;
    l->type = type == SERVER   ? CONF_LISTENER_SERVER
              : type == CLIENT ? CONF_LISTENER_CLIENT
                               : CONF_LISTENER_RELAY;
    l->direction = type == CLIENT ? CONF_OUTBOUND : CONF_INBOUND;
    if (type != 0) {
        check_types(c, map, type);
    }
    if (type == CLIENT) {
        listener_refuse_identity_limits(c, map, "a client listener");
    }
    if (node_get(map, "address") != NULL && l->bind.kind != CONF_BIND_UNIX) {
        schema_refuse_key(c, map, "socket", "a listener whose address is no Unix socket", NULL);
    }
    if (l->proxy_protocol_id_tlv > ID_TLV_ZTUNNEL && l->proxy_protocol_id_tlv < ID_TLV_PRIVATE) {
        report(c, node_get(map, "proxy_protocol_id_tlv"), "208, or a number from 224 to 239",
               "private types go from 224 to 239",
               "a type that the specification keeps for itself");
    }
    proxy_protocol_check(c, map, l);
    gateway_take_targets(c, map, l);
    if (node_get(map, "to") == NULL && (type == CLIENT || sni == NULL)) {
        report(c, map, "an address, a host or a Unix socket to connect to", NULL,
               "missing key 'to'");
    }
    if (is_list_longer(map, "credentials", CREDENTIALS_MAX) ||
        is_list_longer(node_get(map, "upstream"), "credentials", CREDENTIALS_MAX)) {
        report(c, map, NULL, NULL, "more than %d credentials", CREDENTIALS_MAX);
    }
    if (l->protocol == CONF_PROTOCOL_HTTP) {
        check_alpn(c, map, &l->downstream.tls);
        check_alpn(c, node_get(map, "upstream"), &l->upstream.tls);
    }
    if (type == CLIENT) {
        struct conf_tls_side side = l->downstream;
        l->downstream = l->upstream;
        l->upstream = side;
        check_reach(c, map, l);
    } else if (type != 0) {
        check_server_side(c, map, l);
        gateway_check_takes(c, map, l);
        check_sni(c, map, l);
    }
}
