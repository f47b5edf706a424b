/* made: writing the Gateway file, and the part of it that says who is who: own certificates, the
 * authorities, the names that peers must show. */
#include "ghostunnel_priv.h"

#include <arpa/inet.h>
#include <postern/mem.h>
#include <postern/spiffe.h>
#include <postern/x509_peers.h>
#include <stdarg.h>
#include <stdio.h>

#define SYSTEM_CAS "/etc/ssl/certs/ca-certificates.crt"

/* --- writing ---------------------------------------------------------------------------------- */
void ghost_put(struct ghost_made *m, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    m->full = !buf_vprintf(m->out, fmt, ap) || m->full;
    va_end(ap);
}

/* Between single quotes, where only they mean anything. What holds control characters or is not
 * ASCII was refused before. */
void ghost_put_quoted(struct ghost_made *m, const char *text)
{
    ghost_put(m, "'");
    for (; *text != '\0'; text++) {
        ghost_put(m, "%s%c", *text == '\'' ? "'" : "", *text);
    }
    ghost_put(m, "'");
}

void ghost_put_path(struct ghost_made *m, const char *path)
{
    mem_autofree char *whole = path[0] == '/'
                                   ? mem_must_strdup(path)
                                   : mem_must_printf("%s/%s", m->options->directory, path);
    ghost_put_quoted(m, whole);
}

/* --- own certificates ------------------------------------------------------------------------- */
bool ghost_is_spiffe(const struct ghost_line *l)
{
    return ghost_has(l, GHOST_WORKLOAD_API) || ghost_text(l, GHOST_WORKLOAD_ADDR)[0] != '\0';
}

static bool is_token(const struct ghost_line *l)
{
    return ghost_text(l, GHOST_PKCS11_MODULE)[0] != '\0';
}

static bool has_certificate(const struct ghost_line *l)
{
    return ghost_text(l, GHOST_KEYSTORE)[0] != '\0' || ghost_text(l, GHOST_CERT)[0] != '\0';
}

enum ghostunnel_store ghostunnel_store_of(struct str head)
{
    static const unsigned char jceks[4] = {0xce, 0xce, 0xce, 0xce},
                               jks[4] = {0xfe, 0xed, 0xfe, 0xed};
    if (head.n < 4) {
        return GHOSTUNNEL_STORE_UNKNOWN;
    }
    if (memcmp(head.p, jceks, 4) == 0 || memcmp(head.p, jks, 4) == 0) {
        return GHOSTUNNEL_STORE_JCEKS;
    }
    if (memcmp(head.p, "----", 4) == 0 || memcmp(head.p, "CONN", 4) == 0) {
        return GHOSTUNNEL_STORE_PEM;
    }
    return (unsigned char)head.p[0] == 0x30 ? GHOSTUNNEL_STORE_PKCS12 : GHOSTUNNEL_STORE_UNKNOWN;
}

/* By the name as ghostunnel does, and then by what is in it. */
static enum ghostunnel_store store_of(const struct ghost_made *m, const char *path)
{
    static const struct {
        const char *end;
        enum ghostunnel_store store;
    } ends[] = {{".pem", GHOSTUNNEL_STORE_PEM},     {".crt", GHOSTUNNEL_STORE_PEM},
                {".p12", GHOSTUNNEL_STORE_PKCS12},  {".pfx", GHOSTUNNEL_STORE_PKCS12},
                {".jceks", GHOSTUNNEL_STORE_JCEKS}, {".jks", GHOSTUNNEL_STORE_JCEKS}};
    struct str name = str_of(path);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct str want = str_of(ends[i].end);
        if (name.n > want.n &&
            str_eq_nocase((struct str){name.p + name.n - want.n, want.n}, want)) {
            return ends[i].store;
        }
    }
    return m->options->look != NULL ? m->options->look(m->options->look_arg, path)
                                    : GHOSTUNNEL_STORE_UNKNOWN;
}

/* A secret on a command line is everybody's to see: here it is in a file. */
static void put_secret(struct ghost_made *m, enum ghost_flag flag, const char *flag_name,
                       const char *file, const char *option, const char *key)
{
    if (!ghost_has(m->line, flag) && file == NULL) {
        return;
    }
    if (file == NULL) {
        ghost_refuse(m->teller,
                     "--%s: secrets do not stand in a configuration; put it into a file that only "
                     "the gateway's user can read, and name that with %s PATH",
                     flag_name, option);
        return;
    }
    ghost_put(m, "%s", key);
    ghost_put_path(m, file);
}

static void put_keystore(struct ghost_made *m)
{
    const char *path = ghost_text(m->line, GHOST_KEYSTORE);
    switch (store_of(m, path)) {
    case GHOSTUNNEL_STORE_PEM:
        ghost_put(m, "    cert: ");
        break;
    case GHOSTUNNEL_STORE_PKCS12:
        ghost_put(m, "    pkcs12: ");
        break;
    case GHOSTUNNEL_STORE_JCEKS:
        ghost_refuse(m->teller,
                     "--keystore: keystores of Java are not read; 'keytool -importkeystore "
                     "-deststoretype PKCS12' makes another of it");
        return;
    case GHOSTUNNEL_STORE_UNKNOWN:
    default:
        ghost_refuse(m->teller,
                     "--keystore: '%.200s' can be PEM or PKCS#12, and neither its name "
                     "nor its beginning says which",
                     path);
        return;
    }
    ghost_put_path(m, path);
    ghost_put(m, "\n");
    put_secret(m, GHOST_STOREPASS, "storepass", m->options->passphrase_file, "--passphrase-file",
               "    passphrase_file: ");
    ghost_put(m, "\n");
}

static void put_token(struct ghost_made *m)
{
    const char *cert = ghost_text(m->line, GHOST_KEYSTORE)[0] != '\0'
                           ? ghost_text(m->line, GHOST_KEYSTORE)
                           : ghost_text(m->line, GHOST_CERT);
    if (m->options->token_key == NULL) {
        ghost_refuse(m->teller, "--pkcs11-module: ghostunnel looks for the key that fits the "
                                "certificate; say its label, with --token-key LABEL");
        return;
    }
    if (ghost_text(m->line, GHOST_PKCS11_LABEL)[0] == '\0') {
        ghost_refuse(m->teller, "--pkcs11-module without --pkcs11-token-label: which token is it?");
    }
    ghost_put(m, "    cert: ");
    ghost_put_path(m, cert);
    ghost_put(m, "\n    pkcs11:\n      module: ");
    ghost_put_path(m, ghost_text(m->line, GHOST_PKCS11_MODULE));
    ghost_put(m, "\n      token: ");
    ghost_put_quoted(m, ghost_text(m->line, GHOST_PKCS11_LABEL));
    ghost_put(m, "\n      key: ");
    ghost_put_quoted(m, m->options->token_key);
    ghost_put(m, "\n");
    put_secret(m, GHOST_PKCS11_PIN, "pkcs11-pin", m->options->pin_file, "--pin-file",
               "      pin_file: ");
    ghost_put(m, "\n");
    ghost_note(m->teller, "--pkcs11-module: the module runs in a process that sees the system's "
                          "libraries only; add 'token_paths' and 'environment' for what it reads "
                          "besides");
}

static void put_credentials(struct ghost_made *m)
{
    ghost_put(m, "credentials:\n  - name: own\n");
    if (is_token(m->line)) {
        put_token(m);
    } else if (ghost_text(m->line, GHOST_KEYSTORE)[0] != '\0') {
        put_keystore(m);
    } else {
        ghost_put(m, "    cert: ");
        ghost_put_path(m, ghost_text(m->line, GHOST_CERT));
        ghost_put(m, "\n    key: ");
        ghost_put_path(m, ghost_text(m->line, GHOST_KEY));
        ghost_put(m, "\n");
    }
}

static void put_identity(struct ghost_made *m)
{
    const char *address = ghost_text(m->line, GHOST_WORKLOAD_ADDR);
    ghost_put(m, "identity:\n  wait: 30s\n");
    if (address[0] != '\0') {
        ghost_put(m, "  socket: ");
        ghost_put_quoted(m, address);
        ghost_put(m, "\n");
    } else {
        ghost_note(m->teller, "--use-workload-api without an address: SPIFFE_ENDPOINT_SOCKET says "
                              "where, when the gateway is started");
    }
    if (ghost_has(m->line, GHOST_CACERT)) {
        ghost_note(m->teller, "--cacert: with the Workload API, authorities come from there");
    }
}

static void put_trust(struct ghost_made *m)
{
    const char *path = ghost_text(m->line, GHOST_CACERT);
    if (path[0] == '\0') {
        path = m->line->ssl_cert_file != NULL ? m->line->ssl_cert_file : SYSTEM_CAS;
        ghost_note(m->teller, "without --cacert the system's authorities vouch for peers: %.200s",
                   path);
    }
    ghost_put(m, "trust:\n  - name: peers\n    ca: ");
    ghost_put_path(m, path);
    ghost_put(m, "\n");
}

void ghost_put_names(struct ghost_made *m)
{
    bool asks = m->line->mode == GHOST_CLIENT || !ghost_has(m->line, GHOST_NO_AUTH);
    if (ghost_is_spiffe(m->line)) {
        put_identity(m);
        return;
    }
    if (has_certificate(m->line)) {
        put_credentials(m);
    }
    if (asks) {
        put_trust(m);
    }
}

/* --- the names that peers must show ----------------------------------------------------------- */
struct names {
    enum ghost_flag flag;
    const char *flag_name;
    const char *key;
    enum x509_name_kind kind;
};
enum { N_KINDS = 5 };
static const struct names ALLOW[N_KINDS] = {
    {GHOST_ALLOW_CN, "allow-cn", "cn", X509_NAME_CN},
    {GHOST_ALLOW_OU, "allow-ou", "ou", X509_NAME_OU},
    {GHOST_ALLOW_URI, "allow-uri", "uri", X509_NAME_URI},
    {GHOST_ALLOW_DNS, "allow-dns", "dns", X509_NAME_DNS},
    {GHOST_ALLOW_IP, "allow-ip", "dns", X509_NAME_DNS},
};
static const struct names VERIFY[N_KINDS] = {
    {GHOST_VERIFY_CN, "verify-cn", "cn", X509_NAME_CN},
    {GHOST_VERIFY_OU, "verify-ou", "ou", X509_NAME_OU},
    {GHOST_VERIFY_URI, "verify-uri", "uri", X509_NAME_URI},
    {GHOST_VERIFY_DNS, "verify-dns", "dns", X509_NAME_DNS},
    {GHOST_VERIFY_IP, "verify-ip", "dns", X509_NAME_DNS},
};

static bool is_ip(const char *text)
{
    unsigned char addr[16];
    return inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1;
}

/* There a wildcard is a whole segment, and everything else is an error. */
static bool is_uri_pattern(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        size_t n = 1;
        if (text.p[i] != '*') {
            continue;
        }
        n += i + 1 < text.n && text.p[i + 1] == '*' ? 1 : 0;
        if ((i > 0 && text.p[i - 1] != '/') ||
            (i + n < text.n && (n == 2 || text.p[i + n] != '/'))) {
            return false;
        }
        i += n - 1;
    }
    return text.n > 0;
}

static void put_name(struct ghost_made *m, const struct names *k, const char *text)
{
    struct str name = str_of(text);
    struct err err = ERR_INIT;
    bool address = k->flag == GHOST_ALLOW_IP || k->flag == GHOST_VERIFY_IP;
    if (k->kind == X509_NAME_URI && name.n > 1 && name.p[name.n - 1] == '/') {
        name.n--; /* means the same there, and is another one here */
    }
    mem_auto(x509_names_unref) struct x509_names *probe = x509_names_new(false);
    if (address != is_ip(text) && k->kind == X509_NAME_DNS) {
        ghost_refuse(m->teller, "--%s: '%.200s' is %s IP address", k->flag_name, text,
                     address ? "no" : "an");
    } else if (k->kind == X509_NAME_URI && !is_uri_pattern(name)) {
        ghost_refuse(m->teller,
                     "--%s: '%.200s' has a wildcard that is no whole segment, which "
                     "ghostunnel refuses as well",
                     k->flag_name, text);
    } else if (x509_names_add(probe, k->kind, name, &err) == -1) {
        ghost_refuse(m->teller, "--%s: '%.200s': %.200s", k->flag_name, text, err.what);
    }
    mem_autofree char *copy = mem_must_strndup(name.p, name.n);
    ghost_put_quoted(m, copy);
}

/* Two flags can fill one list; they stand side by side in the tables. */
static void put_lists(struct ghost_made *m, const struct names *kinds)
{
    const char *open = NULL;
    for (size_t k = 0; k < N_KINDS; k++) {
        const struct ghost_values *v = &m->line->of[kinds[k].flag];
        for (size_t i = 0; i < v->n; i++) {
            if (open != NULL && strcmp(open, kinds[k].key) == 0) {
                ghost_put(m, ", ");
            } else {
                ghost_put(m, "%s      %s: [", open != NULL ? "]\n" : "", kinds[k].key);
            }
            open = kinds[k].key;
            put_name(m, &kinds[k], v->items[i]);
        }
    }
    ghost_put(m, "%s", open != NULL ? "]\n" : "");
}

static bool names_any(const struct ghost_line *l, const struct names *kinds)
{
    for (size_t k = 0; k < N_KINDS; k++) {
        if (ghost_has(l, kinds[k].flag)) {
            return true;
        }
    }
    return false;
}

void ghost_put_allow(struct ghost_made *m)
{
    bool named = names_any(m->line, ALLOW), all = ghost_has(m->line, GHOST_ALLOW_ALL);
    bool nobody_asked = ghost_has(m->line, GHOST_NO_AUTH);
    if (named + all + nobody_asked != 1) {
        ghost_refuse(m->teller,
                     "%s of --allow-all, --disable-authentication and the names of "
                     "--allow-*, which ghostunnel refuses as well",
                     named + all + nobody_asked == 0 ? "none" : "more than one");
        return;
    }
    if (nobody_asked) {
        ghost_put(m, "    client_certificate: none\n");
    }
    if (!named) {
        ghost_put(m, "    allow:\n      any: true\n");
        return;
    }
    ghost_put(m, "    allow:\n");
    put_lists(m, ALLOW);
}

/* Peers by SPIFFE bundles are known by their IDs, each said whole. */
static void put_identities(struct ghost_made *m)
{
    const struct ghost_values *uris = &m->line->of[GHOST_VERIFY_URI];
    const char *own = m->options->server_id;
    if (ghost_has(m->line, GHOST_VERIFY_CN) || ghost_has(m->line, GHOST_VERIFY_OU) ||
        ghost_has(m->line, GHOST_VERIFY_DNS) || ghost_has(m->line, GHOST_VERIFY_IP)) {
        ghost_refuse(m->teller, "--verify-cn, -ou, -dns and -ip with the Workload API: its servers "
                                "are known by their SPIFFE IDs; say --verify-uri");
        return;
    }
    if (uris->n == 0 && own == NULL) {
        ghost_refuse(m->teller, "with the Workload API and without --verify-uri any identity may "
                                "answer; say which one does, with --server-id ID");
        return;
    }
    ghost_put(m, "    identities: [");
    for (size_t i = 0; i < (own != NULL ? 1 : uris->n); i++) {
        const char *id = own != NULL ? own : uris->items[i];
        struct spiffe_id parsed;
        struct err err = ERR_INIT;
        if (spiffe_id_parse(str_of(id), &parsed, &err) == -1) {
            ghost_refuse(m->teller, "--verify-uri: '%.200s' is no SPIFFE ID, %s", id,
                         strchr(id, '*') != NULL ? "but a pattern; say which server answers, with "
                                                   "--server-id ID"
                                                 : "and no server of the Workload API's");
        }
        ghost_put(m, "%s", i > 0 ? ", " : "");
        ghost_put_quoted(m, id);
    }
    ghost_put(m, "]\n");
}

void ghost_put_verify(struct ghost_made *m, const char *host)
{
    const char *name = ghost_text(m->line, GHOST_SERVER_NAME);
    name = name[0] != '\0' ? name : host;
    if (!is_ip(name)) {
        ghost_put(m, "    server_name: ");
        ghost_put_quoted(m, name);
        ghost_put(m, "\n");
    }
    if (ghost_is_spiffe(m->line)) {
        put_identities(m);
        return;
    }
    /* The host is asked for there whatever else is. */
    ghost_put(m, "    verify:\n      host: ");
    ghost_put_quoted(m, name);
    ghost_put(m, "\n");
    put_lists(m, VERIFY);
}
