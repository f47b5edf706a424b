/* convert: flags of ghostunnel, one by one, into a Gateway file. docs/ghostunnel.md has the
 * table. */
#include "ghostunnel_priv.h"

#include <arpa/inet.h>
#include <postern/conf.h>
#include <postern/mem.h>
#include <stdio.h>

enum {
    CONNECTIONS_MAX = 1000000,
    CONNECTIONS_DEFAULT = 10000, /* of a process, where its file says nothing */
    HOST_MAX = 255,
};

static const uint64_t LIFETIME_MAX_MS = UINT64_C(8760) * 3600 * 1000;

/* --- addresses -------------------------------------------------------------------------------- */
struct place {
    char host[HOST_MAX + 1]; /* without brackets; may be empty */
    bool is_v6, is_address;
    const char *port;
};

/* HOST:PORT as Go splits it. */
static bool split_place(const char *text, struct place *ret)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return false;
    }
    struct str host = {text, (size_t)(colon - text)};
    bool bracketed = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed) {
        host = (struct str){host.p + 1, host.n - 2};
    }
    if (host.n > HOST_MAX || memchr(host.p, '[', host.n) != NULL ||
        memchr(host.p, ']', host.n) != NULL ||
        (!bracketed && memchr(host.p, ':', host.n) != NULL)) {
        return false;
    }
    unsigned char addr[16];
    memcpy(ret->host, host.p, host.n);
    ret->host[host.n] = '\0';
    ret->port = colon + 1;
    ret->is_v6 = inet_pton(AF_INET6, ret->host, addr) == 1;
    ret->is_address = ret->is_v6 || inet_pton(AF_INET, ret->host, addr) == 1;
    uint64_t number;
    return str_to_u64(str_of(ret->port), 65535, &number) && number > 0;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* What ghostunnel takes for safe without being told; by the text alone, as it does. */
static bool is_safe(const char *address)
{
    static const char *const safe[] = {
        "unix:", "systemd:", "launchd:", "127.0.0.1:", "[::1]:", "localhost:"};
    for (size_t i = 0; i < sizeof(safe) / sizeof(safe[0]); i++) {
        if (has_prefix(address, safe[i])) {
            return true;
        }
    }
    return false;
}

/* unix:, with an absolute path. */
static void put_unix(struct ghost_made *m, const char *text)
{
    const char *path = text + strlen("unix:");
    mem_autofree char *whole = path[0] == '/'
                                   ? mem_must_printf("unix:%s", path)
                                   : mem_must_printf("unix:%s/%s", m->options->directory, path);
    ghost_put_quoted(m, whole);
}

static void put_place(struct ghost_made *m, const struct place *p, const char *empty)
{
    const char *host = p->host[0] == '\0'                  ? empty
                       : strcmp(p->host, "localhost") == 0 ? "127.0.0.1"
                                                           : p->host;
    mem_autofree char *whole =
        mem_must_printf("%s%s%s:%s", p->is_v6 ? "[" : "", host, p->is_v6 ? "]" : "", p->port);
    ghost_put_quoted(m, whole);
}

static void put_listen(struct ghost_made *m)
{
    const char *text = ghost_text(m->line, GHOST_LISTEN);
    struct place p;
    ghost_put(m, "    address: ");
    if (has_prefix(text, "unix:")) {
        put_unix(m, text);
        ghost_note(m->teller, "--listen: only the gateway's own user may connect to the socket; "
                              "'socket' says who else may (ghostunnel leaves it to the umask)");
    } else if (has_prefix(text, "systemd:")) {
        ghost_put_quoted(m, text);
    } else if (has_prefix(text, "launchd:")) {
        ghost_refuse(m->teller, "--listen: launchd is another system's; 'systemd:NAME' takes a "
                                "socket from systemd");
    } else if (!split_place(text, &p)) {
        ghost_refuse(m->teller, "--listen: '%.200s' is no HOST:PORT with a port's number", text);
    } else if (!p.is_address && p.host[0] != '\0' && strcmp(p.host, "localhost") != 0) {
        ghost_refuse(m->teller, "--listen: '%.200s' is a name; say the address to listen on",
                     p.host);
    } else {
        put_place(m, &p, "[::]");
    }
    ghost_put(m, "\n");
    if (m->line->mode == GHOST_CLIENT && !is_safe(text)) {
        if (!ghost_has(m->line, GHOST_UNSAFE_LISTEN)) {
            ghost_refuse(m->teller,
                         "--listen: other machines could reach '%.200s', which "
                         "ghostunnel refuses as well without --unsafe-listen",
                         text);
        }
        ghost_put(m, "    allow_remote_clients: true\n");
    }
}

/* ret_host: what a client knows the server by. */
static void put_target(struct ghost_made *m, char ret_host[HOST_MAX + 1])
{
    const char *text = ghost_text(m->line, GHOST_TARGET);
    bool client = m->line->mode == GHOST_CLIENT;
    struct place p;
    snprintf(ret_host, HOST_MAX + 1, "localhost");
    ghost_put(m, "    to: ");
    if (has_prefix(text, "unix:") && !client) {
        put_unix(m, text);
    } else if (!split_place(text, &p) || p.host[0] == '\0') {
        ghost_refuse(m->teller, "--target: '%.200s' is no HOST:PORT with a port's number%s", text,
                     client ? "" : ", and no unix:PATH");
    } else {
        put_place(m, &p, "");
        snprintf(ret_host, HOST_MAX + 1, "%s", p.host);
        if (strcmp(p.host, "localhost") == 0) {
            ghost_note(m->teller, "--target: localhost is 127.0.0.1 here, and never ::1");
        }
    }
    ghost_put(m, "\n");
    if (!client && !is_safe(text) && !ghost_has(m->line, GHOST_UNSAFE_TARGET)) {
        ghost_refuse(m->teller,
                     "--target: '%.200s' is not on this machine, which ghostunnel "
                     "refuses as well without --unsafe-target",
                     text);
    }
}

/* --- what goes with the target ---------------------------------------------------------------- */
static void put_proxy_protocol(struct ghost_made *m)
{
    const char *mode = ghost_text(m->line, GHOST_PROXY_MODE);
    bool plain = ghost_has(m->line, GHOST_PROXY_PROTOCOL);
    if (mode[0] != '\0' && plain) {
        ghost_refuse(m->teller, "--proxy-protocol and --proxy-protocol-mode, which ghostunnel "
                                "refuses as well");
    } else if (plain || strcmp(mode, "conn") == 0) {
        ghost_put(m, "    proxy_protocol: v2\n");
    } else if (strcmp(mode, "tls") == 0 || strcmp(mode, "tls-full") == 0) {
        ghost_put(m, "    proxy_protocol: v2-%s\n", mode);
    } else if (mode[0] != '\0') {
        ghost_refuse(m->teller, "--proxy-protocol-mode: '%.100s' is none of conn, tls, tls-full",
                     mode);
    }
}

/* http://HOST[:PORT][/PATH]: whatever the host, ghostunnel asks the target. */
static void put_check(struct ghost_made *m)
{
    const char *url = ghost_text(m->line, GHOST_TARGET_STATUS);
    if (url[0] == '\0') {
        return;
    }
    if (!has_prefix(url, "http://")) {
        ghost_refuse(m->teller,
                     "--target-status: '%.200s' does not begin with http://; the target "
                     "of a server listener speaks in the clear",
                     url);
        return;
    }
    const char *host = url + strlen("http://"), *path = host + strcspn(host, "/?#");
    size_t n = strcspn(host, ":/?#");
    if (path[0] == '?' || strchr(path, '#') != NULL || memchr(host, '@', (size_t)(path - host)) ||
        n == 0 || host[0] == '[') {
        ghost_refuse(m->teller, "--target-status: '%.200s' is not http://NAME[:PORT][/PATH]", url);
        return;
    }
    mem_autofree char *name = mem_must_strndup(host, n);
    unsigned char addr[4];
    ghost_put(m, "    check:\n      kind: http\n      path: ");
    ghost_put_quoted(m, path[0] != '\0' ? path : "/");
    ghost_put(m, "\n");
    if (inet_pton(AF_INET, name, addr) != 1) {
        ghost_put(m, "      host: ");
        ghost_put_quoted(m, name);
        ghost_put(m, "\n");
    } else {
        ghost_note(m->teller, "--target-status: the Host field is localhost, not an address");
    }
}

static void put_proxy(struct ghost_made *m)
{
    const char *url = ghost_text(m->line, GHOST_PROXY);
    if (url[0] == '\0') {
        return;
    }
    if (!has_prefix(url, "http://")) {
        ghost_refuse(m->teller, "--proxy: only proxies with HTTP CONNECT, http://HOST:PORT; for "
                                "SOCKS put one of these before it");
        return;
    }
    mem_autofree char *whole = mem_must_strdup(url);
    size_t len = strlen(whole);
    if (whole[len - 1] == '/') {
        whole[len - 1] = '\0';
    }
    ghost_put(m, "    connect_proxy: ");
    ghost_put_quoted(m, whole);
    ghost_put(m, "\n");
}

static uint64_t duration_of(struct ghost_made *m, enum ghost_flag f, const char *name,
                            const char *absent)
{
    const char *text = ghost_has(m->line, f) ? ghost_text(m->line, f) : absent;
    uint64_t ms = 0;
    if (!ghost_duration(text, &ms)) {
        ghost_refuse(m->teller, "--%s: '%.100s' is no duration, such as 90s or 1m30s", name, text);
    }
    return ms;
}

/* How many connections at once; 0: it does not say. */
static uint64_t max_connections(struct ghost_made *m)
{
    const char *text = ghost_text(m->line, GHOST_CONNECTIONS);
    uint64_t n = 0;
    if (text[0] == '\0') {
        return 0;
    }
    if (!str_to_u64(str_of(text), UINT32_MAX, &n)) {
        ghost_refuse(m->teller, "--max-concurrent-conns: '%.100s' is no number", text);
    } else if (n > CONNECTIONS_MAX) {
        ghost_refuse(m->teller, "--max-concurrent-conns: more than %d", (int)CONNECTIONS_MAX);
    }
    return n;
}

static void put_limits(struct ghost_made *m, uint64_t *ret_connections)
{
    uint64_t lifetime = duration_of(m, GHOST_LIFETIME, "max-conn-lifetime", "0s");
    *ret_connections = max_connections(m);
    if (lifetime > LIFETIME_MAX_MS) {
        ghost_refuse(m->teller, "--max-conn-lifetime: more than a year");
    }
    if (*ret_connections > 0 || lifetime > 0) {
        ghost_put(m, "    limits:\n");
    }
    if (*ret_connections > 0) {
        ghost_put(m, "      connections: %llu\n", (unsigned long long)*ret_connections);
    }
    if (lifetime >
        0) { /* whole seconds there: never longer than asked, unless that is less than one */
        ghost_put(m, "      lifetime: %llus\n",
                  (unsigned long long)(lifetime < 1000 ? 1 : lifetime / 1000));
    }
}

/* --- listeners -------------------------------------------------------------------------------- */
static void put_tls(struct ghost_made *m)
{
    const char *suites = ghost_text(m->line, GHOST_CIPHER_SUITES);
    const char *max = ghost_text(m->line, GHOST_MAX_TLS);
    if (ghost_has(m->line, GHOST_CIPHER_SUITES) && strcmp(suites, "AES,CHACHA") != 0 &&
        strcmp(suites, "CHACHA,AES") != 0) {
        ghost_refuse(m->teller, "--cipher-suites: they are not chosen here; AES-GCM and "
                                "ChaCha20-Poly1305 are both offered; leave it out");
    }
    if (str_eq_nocase(str_of(max), STR_LIT("TLS1.2"))) {
        ghost_refuse(m->teller, "--max-tls-version: TLS 1.3 is always offered, and who has no more "
                                "than 1.2 gets that; leave it out");
    } else if (max[0] != '\0' && !str_eq_nocase(str_of(max), STR_LIT("TLS1.3"))) {
        ghost_refuse(m->teller, "--max-tls-version: '%.100s' is none of TLS1.2 and TLS1.3", max);
    }
    ghost_put(m, "    tls:\n      min: '1.2'\n");
}

static void put_used(struct ghost_made *m)
{
    const struct ghost_line *l = m->line;
    bool client = l->mode == GHOST_CLIENT, no_auth = ghost_has(l, GHOST_NO_AUTH);
    if (client && no_auth) {
        ghost_put(m, "    credentials: none\n");
    } else if (!ghost_is_spiffe(l)) {
        ghost_put(m, "    credentials: [own]\n");
    }
    if (!ghost_is_spiffe(l) && (client || !no_auth)) {
        ghost_put(m, "    trust: peers\n");
    }
}

static void put_listener(struct ghost_made *m, uint64_t *ret_connections)
{
    char host[HOST_MAX + 1];
    bool client = m->line->mode == GHOST_CLIENT;
    const char *word = client ? "client" : "server";
    ghost_put(m, "listeners:\n  - name: %s\n    type: %s\n", word, word);
    put_listen(m);
    put_target(m, host);
    put_used(m);
    if (client) {
        ghost_put_verify(m, host);
        put_proxy(m);
    } else {
        ghost_put_allow(m);
        put_proxy_protocol(m);
        put_check(m);
    }
    put_tls(m);
    put_limits(m, ret_connections);
}

/* --- the process ------------------------------------------------------------------------------ */
static void put_timeouts(struct ghost_made *m)
{
    uint64_t connect = duration_of(m, GHOST_CONNECT_TIMEOUT, "connect-timeout", "10s");
    uint64_t drain = duration_of(m, GHOST_SHUTDOWN_TIMEOUT, "shutdown-timeout", "5m");
    (void)duration_of(m, GHOST_CLOSE_TIMEOUT, "close-timeout", "1s");
    if (connect < 10 || connect > 600000) {
        ghost_refuse(m->teller, "--connect-timeout: not between 10ms and 10m");
    }
    if (drain > 86400000) {
        ghost_refuse(m->teller, "--shutdown-timeout: more than 24h");
    }
    ghost_put(m, "timeouts:\n  connect: %llums\n  handshake: %llums\n  drain: %llums\n",
              (unsigned long long)connect, (unsigned long long)connect, (unsigned long long)drain);
    if (ghost_has(m->line, GHOST_CLOSE_TIMEOUT)) {
        ghost_note(m->teller,
                   "--close-timeout: when one side has ended, the other may go on for as "
                   "long as it has something to say, and is not cut off");
    }
    if (ghost_has(m->line, GHOST_TIMED_RELOAD)) {
        (void)duration_of(m, GHOST_TIMED_RELOAD, "timed-reload", "0s");
        ghost_note(m->teller, "--timed-reload: files are watched, and looked at every five seconds "
                              "besides");
    }
}

/* Its status page is in TLS unless it says http://. */
static void put_status(struct ghost_made *m)
{
    const char *text = ghost_text(m->line, GHOST_STATUS);
    bool clear = has_prefix(text, "http://");
    const char *address = clear                          ? text + strlen("http://")
                          : has_prefix(text, "https://") ? text + strlen("https://")
                                                         : text;
    struct place p;
    if (text[0] == '\0') {
        if (ghost_text(m->line, GHOST_TARGET_STATUS)[0] != '\0') {
            ghost_put(m, "targets:\n  check: tcp\n");
        }
        return;
    }
    if (has_prefix(address, "unix:") && address == text) {
        ghost_put(m, "admin:\n  socket: ");
        ghost_put_path(m, address + strlen("unix:"));
        ghost_put(m, "\n");
        ghost_note(m->teller, "--status: on the socket 'postern status' is answered, not HTTP");
        return;
    }
    if (!split_place(address, &p) ||
        (!p.is_address && p.host[0] != '\0' && strcmp(p.host, "localhost") != 0)) {
        ghost_refuse(m->teller, "--status: '%.200s' is no [http://]ADDRESS:PORT or unix:PATH",
                     text);
        return;
    }
    if (!clear && !is_safe(address)) {
        ghost_refuse(m->teller,
                     "--status: health is told in the clear only; if other machines may "
                     "hear it, say http://%.200s",
                     address);
        return;
    }
    ghost_put(m, "targets:\n  check: tcp\nhealth:\n  address: ");
    put_place(m, &p, "[::]");
    ghost_put(m, "\n");
    ghost_note(m->teller, "--status: GET /readyz is what GET /_status was, in the clear; GET "
                          "/healthz tells that it runs; metrics have an address of their own, by "
                          "--metrics ADDRESS:PORT");
}

static void put_log(struct ghost_made *m)
{
    const struct ghost_values *quiet = &m->line->of[GHOST_QUIET];
    bool all = false, conns = false;
    for (size_t i = 0; i < quiet->n; i++) {
        const char *what = quiet->items[i];
        all = all || strcmp(what, "all") == 0;
        conns = conns || strcmp(what, "conns") == 0;
        if (strcmp(what, "conn-errs") == 0 || strcmp(what, "handshake-errs") == 0) {
            ghost_note(m->teller,
                       "--quiet=%s: who was refused or failed stays in the log, a line "
                       "each, with its 'reason' to filter by",
                       what);
        } else if (strcmp(what, "all") != 0 && strcmp(what, "conns") != 0 && what[0] != '\0') {
            ghost_refuse(m->teller,
                         "--quiet: '%.100s' is none of all, conns, conn-errs, "
                         "handshake-errs",
                         what);
        }
    }
    if (all || conns) {
        ghost_put(m, "log:\n  access: denied\n%s", all ? "  level: error\n" : "");
    }
    if (ghost_has(m->line, GHOST_SYSLOG)) {
        ghost_note(m->teller, "--syslog: JSON lines go to standard error, from where the service "
                              "manager takes them");
    }
}

static void note_rest(struct ghost_made *m)
{
    if (ghost_has(m->line, GHOST_METRICS_PREFIX) || ghost_has(m->line, GHOST_METRICS_INTERVAL)) {
        ghost_note(m->teller, "--metrics-prefix, --metrics-interval: metrics are called postern_*, "
                              "and are as of when they are asked for");
    }
    if (ghost_has(m->line, GHOST_SKIP_RESOLVE)) {
        ghost_note(m->teller, "--skip-resolve: a name that cannot be looked up never holds up the "
                              "start");
    }
    if (ghost_has(m->line, GHOST_NO_LANDLOCK)) {
        ghost_note(m->teller, "--disable-landlock: the gateway always confines itself; its files "
                              "and sockets stay in reach");
    }
}

/* --- what cannot be ----------------------------------------------------------------------------
 */
static void check_texts(struct ghost_made *m)
{
    for (size_t f = 0; f < GHOST_N_FLAGS; f++) {
        for (size_t i = 0; i < m->line->of[f].n; i++) {
            const char *text = m->line->of[f].items[i];
            bool plain = strlen(text) <= 4096;
            for (; plain && *text != '\0'; text++) {
                plain = *text >= ' ' && *text < 0x7f;
            }
            if (!plain && f != GHOST_STOREPASS && f != GHOST_PKCS11_PIN) {
                ghost_refuse(m->teller,
                             "a flag's value is overlong, or holds control characters "
                             "or what is not ASCII: '%.100s'",
                             m->line->of[f].items[i]);
            }
        }
    }
}

static void check_line(struct ghost_made *m)
{
    const struct ghost_line *l = m->line;
    bool keystore = ghost_text(l, GHOST_KEYSTORE)[0] != '\0';
    bool cert = ghost_text(l, GHOST_CERT)[0] != '\0', key = ghost_text(l, GHOST_KEY)[0] != '\0';
    bool token = ghost_text(l, GHOST_PKCS11_MODULE)[0] != '\0';
    int sources = keystore + (cert && (key || token)) + ghost_is_spiffe(l);
    if (!ghost_has(l, GHOST_LISTEN) || !ghost_has(l, GHOST_TARGET)) {
        ghost_refuse(m->teller, "--listen and --target have both to be there");
    }
    if ((cert && !key && !token) || (key && !cert)) {
        ghost_refuse(m->teller, "--cert and --key stand together");
    }
    if (l->mode == GHOST_CLIENT && ghost_has(l, GHOST_NO_AUTH) && !ghost_is_spiffe(l)) {
        sources++;
    }
    if (sources != 1) {
        ghost_refuse(m->teller,
                     "%s of --keystore, --cert with --key, --use-workload-api%s, which "
                     "ghostunnel refuses as well",
                     sources == 0 ? "none" : "more than one",
                     l->mode == GHOST_CLIENT ? " and --disable-authentication" : "");
    }
    if (ghost_has(l, GHOST_STATUS) && m->options->metrics != NULL &&
        strstr(ghost_text(l, GHOST_STATUS), m->options->metrics) != NULL) {
        ghost_refuse(m->teller, "--metrics: health is told at that address");
    }
}

/* What comes out has to be taken, by this binary and now. */
static void check_made(struct ghost_made *m)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    char text[900];
    if (conf_parse_gateway("(made)", (const char *)buf_head(m->out), buf_len(m->out), diag,
                           &conf) == -1) {
        for (size_t i = 0; i < conf_diag_count(diag); i++) {
            ghost_refuse(m->teller, "what was made of it is not taken: %s",
                         err_text(conf_diag_get(diag, i), text, sizeof(text)));
        }
        if (conf_diag_count(diag) == 0) {
            ghost_refuse(m->teller, "what was made of it is not taken");
        }
    }
    conf_proxy_free(conf);
    conf_diag_free(diag);
}

static void make(struct ghost_made *m)
{
    uint64_t connections = 0;
    ghost_put(m, "kind: Gateway\nlevel: 1\n");
    ghost_put_names(m);
    put_listener(m, &connections);
    put_timeouts(m);
    if (connections > CONNECTIONS_DEFAULT) {
        ghost_put(m, "limits:\n  connections: %llu\n", (unsigned long long)connections);
    }
    put_status(m);
    if (m->options->metrics != NULL) {
        ghost_put(m, "metrics:\n  address: ");
        ghost_put_quoted(m, m->options->metrics);
        ghost_put(m, "\n");
    }
    put_log(m);
    note_rest(m);
}

int ghostunnel_convert(struct str text, const struct ghostunnel_options *options,
                       ghostunnel_tell_fn tell, void *arg, struct buf *out, struct err *err)
{
    struct ghost_words words = {.n = 0};
    struct ghost_line line = {.mode = 0};
    struct ghost_teller teller = {.tell = tell, .arg = arg};
    struct buf made = BUF_INIT(GHOSTUNNEL_OUT_MAX);
    struct ghost_made m = {.options = options, .line = &line, .teller = &teller, .out = &made};
    int rc = ghost_words_split(text, &words, err);
    if (rc == 0) {
        ghost_line_read(&words, &teller, &line);
        check_texts(&m);
        if (!teller.refused) {
            check_line(&m);
        }
        if (!teller.refused) {
            make(&m);
        }
        if (!teller.refused && !m.full) {
            check_made(&m);
        }
        if (teller.refused) {
            rc = err_set(err, ERR_UNSUPPORTED, "the command line says what cannot be carried over");
        } else if (m.full || !buf_append_str(out, buf_str(&made))) {
            rc = err_set(err, ERR_LIMIT, "what the command line says does not fit");
        }
    }
    ghost_line_deinit(&line);
    ghost_words_deinit(&words);
    buf_reset(&made);
    return rc;
}
