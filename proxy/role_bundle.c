/* bundle show: what an agent says is to be trusted: authorities, or the keys that judge tokens. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <postern/buf.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <postern/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_TIMEOUT_S = 10 };

struct show {
    const char *socket;
    bool jwt, json;
    uint64_t timeout_s;
    json_t *domains; /* --json */
};

static const struct role_option OPTIONS[] = {
    ROLE_FLAG("--jwt", struct show, jwt, "the keys for tokens"),
    ROLE_FLAG("--json", struct show, json,
              "as JSON: {\"trust_domains\":{NAME:BUNDLE}}, keys as JWKs"),
    ROLE_SOCKET(struct show, socket),
    ROLE_NUMBER("--timeout", "SECONDS", struct show, timeout_s, 3600,
                "how long to wait (default 10)"),
};
static const struct role_use USE = {
    .command = "bundle",
    .uses = ROLE_USES("bundle show [OPTIONS]"),
    .about = "Asks a SPIFFE agent what it trusts: X.509 authorities, or, with --jwt, the keys that "
             "judge\n"
             "JWT-SVIDs.\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

/* "spiffe://td", which the agents' maps have for keys. */
static int domain_of(const char *key, struct str *ret, struct err *err)
{
    struct spiffe_id id;
    if (spiffe_id_parse(str_of(key), &id, err) == -1 || id.path.n > 0) {
        return err_set(err, ERR_PROTOCOL, "the agent sent a bundle of what is no trust domain");
    }
    *ret = id.trust_domain;
    return 0;
}

static void add_domain(struct show *s, struct str td, json_t *bundle)
{
    mem_autofree char *name = mem_must_strndup(td.p, td.n);
    (void)json_object_set_new(s->domains, name, bundle);
}

/* --- X.509 ------------------------------------------------------------------------------------ */
static int add_authority(json_t *keys, X509 *cert, struct err *err)
{
    struct buf text = BUF_INIT(1 << 16);
    uint8_t *der = NULL;
    size_t n = 0;
    int rc = x509_to_der(cert, &der, &n, err);
    if (rc == 0) {
        rc = jwt_authority_write(X509_get0_pubkey(cert), (struct str){(const char *)der, n}, &text,
                                 err);
    }
    if (rc == 0) {
        (void)json_array_append_new(
            keys, json_loadb((const char *)buf_head(&text), buf_len(&text), 0, NULL));
    }
    free(der);
    buf_reset(&text);
    return rc;
}

static int show_x509_bundle(struct show *s, const char *key, struct str ders, struct err *err)
{
    mem_auto(x509_trust_unref) struct x509_trust *trust = x509_trust_new();
    struct str td = STR_NONE;
    if (domain_of(key, &td, err) == -1 || x509_trust_add(trust, td, ders, err) == -1) {
        return -1;
    }
    STACK_OF(X509) *roots = x509_trust_roots(trust, td);
    json_t *keys = json_array();
    int rc = 0;
    if (!s->json) {
        printf("trust domain  %.*s\n", STR_ARG(td));
    }
    for (int i = 0; rc == 0 && i < sk_X509_num(roots); i++) {
        if (s->json) {
            rc = add_authority(keys, sk_X509_value(roots, i), err);
        } else {
            role_print_authority(sk_X509_value(roots, i));
        }
    }
    if (s->json) {
        add_domain(s, td, json_pack("{s:O}", "keys", keys));
    }
    json_decref(keys);
    return rc;
}

static int on_x509(void *arg, struct str message, struct err *err)
{
    Workload__X509BundlesResponse *r =
        workload__x509_bundles_response__unpack(NULL, message.n, (const uint8_t *)message.p);
    int rc = r != NULL ? 0 : err_set(err, ERR_PROTOCOL, "the agent sent no X509BundlesResponse");
    for (size_t i = 0; r != NULL && rc == 0 && i < r->n_bundles; i++) {
        rc = show_x509_bundle(
            arg, r->bundles[i]->key,
            (struct str){(const char *)r->bundles[i]->value.data, r->bundles[i]->value.len}, err);
    }
    if (r != NULL) {
        workload__x509_bundles_response__free_unpacked(r, NULL);
    }
    return rc;
}

/* --- tokens ----------------------------------------------------------------------------------- */
static int show_jwt_bundle(struct show *s, const char *key, struct str set, struct err *err)
{
    mem_auto(jwt_keys_free) struct jwt_keys *keys = NULL;
    struct str td = STR_NONE;
    if (domain_of(key, &td, err) == -1 || jwt_keys_parse(set, false, &keys, err) == -1) {
        return -1;
    }
    if (s->json) {
        add_domain(s, td, json_loadb(set.p, set.n, 0, NULL)); /* it was read once already */
        return 0;
    }
    printf("trust domain  %.*s\n", STR_ARG(td));
    for (size_t i = 0; i < jwt_keys_count(keys); i++) {
        printf("key           %s ", jwt_keys_kind(keys, i));
        role_put_text(jwt_keys_kid(keys, i));
    }
    return 0;
}

static int on_jwt(void *arg, struct str message, struct err *err)
{
    Workload__JWTBundlesResponse *r =
        workload__jwtbundles_response__unpack(NULL, message.n, (const uint8_t *)message.p);
    int rc = r != NULL ? 0 : err_set(err, ERR_PROTOCOL, "the agent sent no JWTBundlesResponse");
    for (size_t i = 0; r != NULL && rc == 0 && i < r->n_bundles; i++) {
        rc = show_jwt_bundle(
            arg, r->bundles[i]->key,
            (struct str){(const char *)r->bundles[i]->value.data, r->bundles[i]->value.len}, err);
    }
    if (r != NULL) {
        workload__jwtbundles_response__free_unpacked(r, NULL);
    }
    return rc;
}

int bundle_main(int argc, char **argv)
{
    struct show s = {.timeout_s = DEFAULT_TIMEOUT_S};
    struct err err = ERR_INIT;
    int status;
    if (!role_options(&USE, &argc, argv, &s, &status)) {
        return status;
    }
    if (argc != 2 || strcmp(argv[1], "show") != 0) {
        return role_misuse(&USE, "expected `show`");
    }
    jwt_init();
    s.domains = json_object();
    const struct role_workload what = {.socket = s.socket,
                                       .method = s.jwt ? PROTO_FETCH_JWT_BUNDLES
                                                       : PROTO_FETCH_X509_BUNDLES,
                                       .streaming = true,
                                       .timeout_s = s.timeout_s,
                                       .on_message = s.jwt ? on_jwt : on_x509,
                                       .arg = &s};
    int rc = role_workload_ask(&what, &err);
    if (rc == 0 && s.json) {
        json_t *all = json_pack("{s:O}", "trust_domains", s.domains);
        char *text = json_dumps(all, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
        printf("%s\n", text != NULL ? text : "");
        free(text);
        json_decref(all);
    }
    json_decref(s.domains);
    (void)fflush(stdout);
    return rc == 0 ? 0 : role_say("bundle", &err, 1);
}
