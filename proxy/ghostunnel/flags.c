/* flags: those of ghostunnel 1.11, which command has them, what the environment may say in their
 * place, and which have no counterpart at all. The words are read as kingpin reads them. */
#include "ghostunnel_priv.h"

#include <postern/mem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum kind { TEXT, LIST, BOOL };

/* Why some have no counterpart, and what to do. */
#define REGO                                                                                       \
    "policies in Rego have no counterpart: say it in our policy language, a file of kind Policy, " \
    "which 'policy' names"
#define ACME                                                                                       \
    "certificates are not fetched by ACME here: let certbot or the like write files, and name "    \
    "them "                                                                                        \
    "with --cert and --key; they are read again when they change"
#define KEYCHAIN "keychains are another system's; name files, or a token with --pkcs11-module"
#define PUSHED "metrics are not sent anywhere: have them scraped, from the address of --metrics"

static const struct {
    const char *name;
    enum ghost_flag flag;
    enum kind kind;
    enum ghost_mode mode;
    const char *env;     /* the variable that says the same; NULL: none */
    const char *refused; /* NULL: there is a counterpart */
} FLAGS[] = {
    {"keystore", GHOST_KEYSTORE, TEXT, GHOST_BOTH, "KEYSTORE_PATH", NULL},
    {"cert", GHOST_CERT, TEXT, GHOST_BOTH, "CERT_PATH", NULL},
    {"key", GHOST_KEY, TEXT, GHOST_BOTH, "KEY_PATH", NULL},
    {"storepass", GHOST_STOREPASS, TEXT, GHOST_BOTH, "KEYSTORE_PASS", NULL},
    {"cacert", GHOST_CACERT, TEXT, GHOST_BOTH, "CACERT_PATH", NULL},
    {"use-workload-api", GHOST_WORKLOAD_API, BOOL, GHOST_BOTH, NULL, NULL},
    {"use-workload-api-addr", GHOST_WORKLOAD_ADDR, TEXT, GHOST_BOTH, "SPIFFE_ENDPOINT_SOCKET",
     NULL},
    {"cipher-suites", GHOST_CIPHER_SUITES, TEXT, GHOST_BOTH, NULL, NULL},
    {"allow-unsafe-cipher-suites", GHOST_UNSAFE_SUITES, BOOL, GHOST_BOTH, NULL,
     "there are no unsafe cipher suites here; leave it out"},
    {"max-tls-version", GHOST_MAX_TLS, TEXT, GHOST_BOTH, NULL, NULL},
    {"timed-reload", GHOST_TIMED_RELOAD, TEXT, GHOST_BOTH, NULL, NULL},
    {"shutdown-timeout", GHOST_SHUTDOWN_TIMEOUT, TEXT, GHOST_BOTH, NULL, NULL},
    {"connect-timeout", GHOST_CONNECT_TIMEOUT, TEXT, GHOST_BOTH, NULL, NULL},
    {"close-timeout", GHOST_CLOSE_TIMEOUT, TEXT, GHOST_BOTH, NULL, NULL},
    {"max-conn-lifetime", GHOST_LIFETIME, TEXT, GHOST_BOTH, NULL, NULL},
    {"max-concurrent-conns", GHOST_CONNECTIONS, TEXT, GHOST_BOTH, NULL, NULL},
    {"metrics-graphite", GHOST_GRAPHITE, TEXT, GHOST_BOTH, NULL, PUSHED},
    {"metrics-url", GHOST_METRICS_URL, TEXT, GHOST_BOTH, NULL, PUSHED},
    {"metrics-prefix", GHOST_METRICS_PREFIX, TEXT, GHOST_BOTH, NULL, NULL},
    {"metrics-interval", GHOST_METRICS_INTERVAL, TEXT, GHOST_BOTH, NULL, NULL},
    {"status", GHOST_STATUS, TEXT, GHOST_BOTH, NULL, NULL},
    {"enable-pprof", GHOST_PPROF, BOOL, GHOST_BOTH, NULL,
     "profiles are Go's: use perf, or 'postern status' and the metrics; leave it out"},
    {"enable-shutdown", GHOST_SHUTDOWN, BOOL, GHOST_BOTH, NULL,
     "nobody ends a gateway over HTTP: send it SIGTERM, or stop its unit; leave it out"},
    {"quiet", GHOST_QUIET, LIST, GHOST_BOTH, NULL, NULL},
    {"skip-resolve", GHOST_SKIP_RESOLVE, BOOL, GHOST_BOTH, NULL, NULL},
    {"syslog", GHOST_SYSLOG, BOOL, GHOST_BOTH, NULL, NULL},
    {"eventlog", GHOST_EVENTLOG, BOOL, GHOST_BOTH, NULL, "it is another system's; leave it out"},
    {"keychain-identity", GHOST_KEYCHAIN_IDENTITY, TEXT, GHOST_BOTH, NULL, KEYCHAIN},
    {"keychain-issuer", GHOST_KEYCHAIN_ISSUER, TEXT, GHOST_BOTH, NULL, KEYCHAIN},
    {"keychain-require-token", GHOST_KEYCHAIN_TOKEN, BOOL, GHOST_BOTH, NULL, KEYCHAIN},
    {"pkcs11-module", GHOST_PKCS11_MODULE, TEXT, GHOST_BOTH, "PKCS11_MODULE", NULL},
    {"pkcs11-token-label", GHOST_PKCS11_LABEL, TEXT, GHOST_BOTH, "PKCS11_TOKEN_LABEL", NULL},
    {"pkcs11-pin", GHOST_PKCS11_PIN, TEXT, GHOST_BOTH, "PKCS11_PIN", NULL},
    {"use-landlock", GHOST_USE_LANDLOCK, BOOL, GHOST_BOTH, NULL, NULL},
    {"disable-landlock", GHOST_NO_LANDLOCK, BOOL, GHOST_BOTH, NULL, NULL},

    {"listen", GHOST_LISTEN, TEXT, GHOST_BOTH, NULL, NULL},
    {"target", GHOST_TARGET, TEXT, GHOST_BOTH, NULL, NULL},
    {"disable-authentication", GHOST_NO_AUTH, BOOL, GHOST_BOTH, NULL, NULL},
    {"target-status", GHOST_TARGET_STATUS, TEXT, GHOST_SERVER, NULL, NULL},
    {"proxy-protocol", GHOST_PROXY_PROTOCOL, BOOL, GHOST_SERVER, NULL, NULL},
    {"proxy-protocol-mode", GHOST_PROXY_MODE, TEXT, GHOST_SERVER, NULL, NULL},
    {"unsafe-target", GHOST_UNSAFE_TARGET, BOOL, GHOST_SERVER, NULL, NULL},
    {"allow-all", GHOST_ALLOW_ALL, BOOL, GHOST_SERVER, NULL, NULL},
    {"allow-cn", GHOST_ALLOW_CN, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-ou", GHOST_ALLOW_OU, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-dns", GHOST_ALLOW_DNS, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-dns-san", GHOST_ALLOW_DNS, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-ip", GHOST_ALLOW_IP, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-ip-san", GHOST_ALLOW_IP, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-uri", GHOST_ALLOW_URI, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-uri-san", GHOST_ALLOW_URI, LIST, GHOST_SERVER, NULL, NULL},
    {"allow-policy", GHOST_ALLOW_POLICY, TEXT, GHOST_SERVER, NULL, REGO},
    {"allow-query", GHOST_ALLOW_QUERY, TEXT, GHOST_SERVER, NULL, REGO},
    {"auto-acme-cert", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},
    {"auto-acme-email", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},
    {"auto-acme-agree-to-tos", GHOST_ACME, BOOL, GHOST_SERVER, NULL, ACME},
    {"auto-acme-ca", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},
    {"auto-acme-testca", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},
    {"auto-acme-renew-check-interval", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},
    {"auto-acme-alt-tls-alpn-port", GHOST_ACME, TEXT, GHOST_SERVER, NULL, ACME},

    {"unsafe-listen", GHOST_UNSAFE_LISTEN, BOOL, GHOST_CLIENT, NULL, NULL},
    {"override-server-name", GHOST_SERVER_NAME, TEXT, GHOST_CLIENT, NULL, NULL},
    {"proxy", GHOST_PROXY, TEXT, GHOST_CLIENT, NULL, NULL},
    {"connect-proxy", GHOST_PROXY, TEXT, GHOST_CLIENT, NULL, NULL},
    {"verify-cn", GHOST_VERIFY_CN, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-ou", GHOST_VERIFY_OU, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-dns", GHOST_VERIFY_DNS, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-dns-san", GHOST_VERIFY_DNS, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-ip", GHOST_VERIFY_IP, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-ip-san", GHOST_VERIFY_IP, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-uri", GHOST_VERIFY_URI, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-uri-san", GHOST_VERIFY_URI, LIST, GHOST_CLIENT, NULL, NULL},
    {"verify-policy", GHOST_VERIFY_POLICY, TEXT, GHOST_CLIENT, NULL, REGO},
    {"verify-query", GHOST_VERIFY_QUERY, TEXT, GHOST_CLIENT, NULL, REGO},
};
enum { N_NAMES = sizeof(FLAGS) / sizeof(FLAGS[0]) };

/* --- telling ---------------------------------------------------------------------------------- */
static void tell(struct ghost_teller *t, bool refused, const char *fmt, va_list ap)
{
    char text[1000];
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    for (char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            *p = '?'; /* nothing of the command line reaches a terminal as it is */
        }
    }
    t->refused = t->refused || refused;
    t->tell(t->arg, refused, text);
}

void ghost_refuse(struct ghost_teller *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(t, true, fmt, ap);
    va_end(ap);
}

void ghost_note(struct ghost_teller *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    tell(t, false, fmt, ap);
    va_end(ap);
}

/* --- values ----------------------------------------------------------------------------------- */
const char *ghost_text(const struct ghost_line *l, enum ghost_flag f)
{
    return l->of[f].n > 0 ? l->of[f].items[0] : "";
}

bool ghost_has(const struct ghost_line *l, enum ghost_flag f)
{
    return l->of[f].n > 0;
}

static void add(struct ghost_line *l, enum ghost_flag f, const char *text)
{
    struct ghost_values *v = &l->of[f];
    v->items = (const char **)mem_must_realloc((void *)v->items, (v->n + 1) * sizeof(*v->items));
    v->items[v->n++] = text;
}

void ghost_line_deinit(struct ghost_line *l)
{
    for (size_t i = 0; i < GHOST_N_FLAGS; i++) {
        free((void *)l->of[i].items);
        l->of[i] = (struct ghost_values){0};
    }
}

/* Digits up to `max`, moved past; false: there are none, or too many. */
static bool take_digits(const char **text, uint64_t max, uint64_t *ret, uint64_t *ret_scale)
{
    const char *begin = *text;
    *ret = 0;
    *ret_scale = 1;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        if (*ret > max / 10) {
            return false;
        }
        *ret = *ret * 10 + (uint64_t)(**text - '0');
        *ret_scale *= 10;
    }
    return *text > begin;
}

bool ghost_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"ns", 1},         {"us", 1000},        {"ms", 1000000},
                 {"s", 1000000000}, {"m", 60000000000u}, {"h", 3600000000000u}};
    enum { MAX = 1000000, FRACTION_MAX = 1000000 };
    uint64_t total = 0;
    if (strcmp(text, "0") == 0) {
        *ret_ms = 0;
        return true;
    }
    do {
        uint64_t whole, scale, part = 0, part_scale = 1;
        if (!take_digits(&text, MAX, &whole, &scale)) {
            return false;
        }
        if (*text == '.') {
            text++;
            if (!take_digits(&text, FRACTION_MAX, &part, &part_scale)) {
                return false;
            }
        }
        size_t len = strcspn(text, ".0123456789"), u = 0;
        while (u < 6 && (strlen(units[u].name) != len || strncmp(units[u].name, text, len) != 0)) {
            u++;
        }
        /* No part is above 2^53 ns after this, and no sum above 2^62. */
        if (u == 6 || part_scale > 10000000 || whole > (UINT64_C(1) << 53) / units[u].ns ||
            total > (UINT64_C(1) << 61)) {
            return false;
        }
        total += whole * units[u].ns + units[u].ns / part_scale * part;
        text += len;
    } while (*text != '\0');
    *ret_ms = (total + 999999) / 1000000;
    return true;
}

/* --- the environment in front ----------------------------------------------------------------- */
/* NAME=value, and no path or flag. */
static bool is_assignment(const char *word)
{
    size_t n = strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && word[n] == '=' && (word[0] < '0' || word[0] > '9');
}

static void take_variable(struct ghost_line *l, const char *word, struct ghost_teller *t)
{
    const char *value = strchr(word, '=') + 1;
    size_t n = (size_t)(value - 1 - word);
    for (size_t i = 0; i < N_NAMES; i++) {
        const char *env = FLAGS[i].env;
        if (env != NULL && strlen(env) == n && memcmp(env, word, n) == 0) {
            /* A flag goes before it; an empty variable is none. */
            if (value[0] != '\0' && !ghost_has(l, FLAGS[i].flag)) {
                add(l, FLAGS[i].flag, value);
            }
            return;
        }
    }
    if (n == strlen("SSL_CERT_FILE") && memcmp(word, "SSL_CERT_FILE", n) == 0) {
        l->ssl_cert_file = value[0] != '\0' ? value : NULL;
        return;
    }
    ghost_note(t, "%.*s is nothing that ghostunnel reads, and is left out",
               (int)(n > 100 ? 100 : n), word);
}

/* --- flags ------------------------------------------------------------------------------------ */
struct named {
    struct str name;   /* without the dashes */
    const char *value; /* behind '='; NULL: there is none */
    size_t row;        /* N_NAMES: none of ghostunnel's */
    bool negated;
};

static size_t row_of(struct str name, enum ghost_mode mode)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        if (str_eq(name, str_of(FLAGS[i].name)) && (FLAGS[i].mode & mode) != 0) {
            return i;
        }
    }
    return N_NAMES;
}

static struct named name_of(const char *word, enum ghost_mode mode)
{
    const char *equals = strchr(word, '=');
    struct named n = {.name = str_of(word + 2), .value = equals != NULL ? equals + 1 : NULL};
    if (equals != NULL) {
        n.name.n = (size_t)(equals - word - 2);
    }
    n.row = row_of(n.name, mode);
    if (n.row == N_NAMES && str_has_prefix(n.name, STR_LIT("no-"))) {
        size_t row = row_of((struct str){n.name.p + 3, n.name.n - 3}, mode);
        n.negated = row < N_NAMES && FLAGS[row].kind == BOOL;
        n.row = n.negated ? row : N_NAMES;
    }
    return n;
}

static void refuse_unknown(struct ghost_teller *t, struct str name, enum ghost_mode mode)
{
    bool other = row_of(name, GHOST_BOTH & ~mode) < N_NAMES;
    ghost_refuse(t, "--%.*s is no flag of ghostunnel 1.11%s", (int)(name.n > 100 ? 100 : name.n),
                 name.p,
                 !other                 ? ""
                 : mode == GHOST_SERVER ? " in server mode"
                                        : " in client mode");
}

static void take_flag(struct ghost_line *l, const struct named *n, const char *value,
                      struct ghost_teller *t)
{
    const char *name = FLAGS[n->row].name;
    enum ghost_flag flag = FLAGS[n->row].flag;
    if (FLAGS[n->row].refused != NULL) {
        if (!n->negated) {
            ghost_refuse(t, "--%s: %s", name, FLAGS[n->row].refused);
        }
    } else if (FLAGS[n->row].kind != LIST && ghost_has(l, flag)) {
        ghost_refuse(t, "--%s stands twice", name);
    } else if (!n->negated) {
        add(l, flag, value);
    }
}

static bool is_command(const char *word)
{
    return strcmp(word, "server") == 0 || strcmp(word, "client") == 0;
}

/* The command may stand behind flags of both: --name value has to be known for a pair. */
static const char *find_command(const struct ghost_words *w, size_t from)
{
    for (size_t i = from; i < w->n; i++) {
        const char *word = w->items[i];
        if (word[0] != '-') {
            return word;
        }
        struct named n =
            word[1] == '-' ? name_of(word, GHOST_BOTH) : (struct named){.row = N_NAMES};
        if (n.row < N_NAMES && FLAGS[n.row].kind != BOOL && n.value == NULL) {
            i++;
        }
    }
    return NULL;
}

static void read_words(const struct ghost_words *w, size_t from, struct ghost_teller *t,
                       struct ghost_line *l)
{
    bool seen = false;
    for (size_t i = from; i < w->n; i++) {
        const char *word = w->items[i];
        if (!seen && is_command(word)) {
            seen = true;
            continue;
        }
        if (word[0] != '-' || word[1] != '-' || word[2] == '\0') {
            ghost_refuse(t,
                         word[0] == '@' ? "'%.100s': arguments in a file; write them out"
                                        : "'%.100s' is neither a flag nor a flag's value",
                         word);
            continue;
        }
        struct named n = name_of(word, l->mode);
        if (n.row == N_NAMES) {
            refuse_unknown(t, n.name, l->mode);
            continue;
        }
        bool has_value = FLAGS[n.row].kind != BOOL;
        const char *value = n.value;
        if (has_value && value == NULL && i + 1 < w->n && w->items[i + 1][0] != '-') {
            value = w->items[++i];
        }
        if (has_value != (value != NULL)) {
            ghost_refuse(t, "--%s %s", FLAGS[n.row].name,
                         has_value ? "has no value" : "takes no value");
            continue;
        }
        take_flag(l, &n, has_value ? value : "", t);
    }
}

void ghost_line_read(const struct ghost_words *w, struct ghost_teller *t, struct ghost_line *ret)
{
    size_t from = 0;
    *ret = (struct ghost_line){.mode = 0};
    while (from < w->n && is_assignment(w->items[from])) {
        from++;
    }
    size_t n_variables = from;
    if (from < w->n) {
        const char *slash = strrchr(w->items[from], '/');
        from += strcmp(slash != NULL ? slash + 1 : w->items[from], "ghostunnel") == 0 ? 1 : 0;
    }
    const char *command = find_command(w, from);
    if (command == NULL || !is_command(command)) {
        ghost_refuse(t, "neither 'server' nor 'client': there is no other command of ghostunnel's "
                        "to carry over");
        return;
    }
    ret->mode = strcmp(command, "server") == 0 ? GHOST_SERVER : GHOST_CLIENT;
    read_words(w, from, t, ret);
    for (size_t i = 0; i < n_variables; i++) {
        take_variable(ret, w->items[i], t);
    }
}
