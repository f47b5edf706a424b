/*
 * The input is a certificate as a peer sends it; before it, up to a NUL, a name that counts.
 * Properties: reading names and matching is without a fault; text for people is printable; a
 * pattern without stars matches itself; what a wildcard stands for, it also stands for in capitals;
 * an authority that nobody has signed with is never the answer.
 */
#include <postern/x509_peers.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { WHEN = 1767225600 };

static struct x509_peers *make_peers(void)
{
    uint8_t point[65];
    X509 *root = NULL;
    struct x509_peers *peers = NULL;
    EVP_PKEY *key = x509_key_new(NULL);
    CHECK(key != NULL && x509_key_point(key, point, NULL) == 0);
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://example.org"),
                              .point = point,
                              .ca = true,
                              .path_len = -1,
                              .not_before_s = WHEN - 3600,
                              .not_after_s = WHEN + 3600};
    CHECK(x509_issue(&what, NULL, key, &root, NULL) == 0);
    STACK_OF(X509) *cas = sk_X509_new_null();
    sk_X509_push(cas, root);
    CHECK(x509_peers_new_ordinary(cas, NULL, &peers, NULL) == 0);
    sk_X509_pop_free(cas, X509_free);
    EVP_PKEY_free(key);
    return peers;
}

static void match(struct str name)
{
    char capitals[256];
    struct str upper = {capitals, name.n < sizeof(capitals) ? name.n : sizeof(capitals)};
    struct str part = {name.p, upper.n};
    for (size_t i = 0; i < upper.n; i++) {
        capitals[i] = (char)toupper((unsigned char)name.p[i]);
    }
    if (name.n > 0) {
        CHECK(memchr(name.p, '*', name.n) != NULL || x509_uri_match(name, name));
        CHECK(x509_dns_match(name, name, false));
    }
    CHECK(x509_dns_match(STR_LIT("*.b.example"), part, true) ==
          x509_dns_match(STR_LIT("*.B.EXAMPLE"), upper, true));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct x509_peers *peers;
    if (peers == NULL) {
        peers = make_peers();
    }
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    struct str name = {(const char *)data, nul != NULL ? (size_t)(nul - data) : size};
    struct str ders = {nul != NULL ? (const char *)nul + 1 : NULL,
                       nul != NULL ? size - name.n - 1 : 0};
    match(name);
    struct x509_names *names = x509_names_new(false);
    for (int k = 0; k < X509_N_NAME_KINDS; k++) {
        struct err err = ERR_INIT;
        CHECK((x509_names_add(names, (enum x509_name_kind)k, name, &err) == 0) ==
              (err.code == ERR_NONE));
    }
    STACK_OF(X509) *chain = x509_chain_from_der(ders, NULL);
    if (chain != NULL) {
        char shown[300];
        static struct x509_peer peer;
        X509 *leaf = sk_X509_value(chain, 0);
        size_t n = x509_cert_show_names(leaf, shown, sizeof(shown));
        CHECK(n < sizeof(shown) && strlen(shown) == n);
        for (size_t i = 0; i < n; i++) {
            CHECK(isprint((unsigned char)shown[i]));
        }
        (void)x509_cert_has_host(leaf, name, false);
        (void)x509_cert_covers_names(leaf, leaf);
        for (int server = 0; server < 2; server++) {
            struct err err = ERR_INIT;
            const struct x509_ask ask = {
                .leaf = leaf, .chain = chain, .is_server = server == 1, .now_s = WHEN};
            enum x509_verdict v = x509_peers_verify(peers, names, &ask, &peer, &err);
            CHECK(v != X509_OK && err.code != ERR_NONE && strlen(peer.id) == peer.id_len);
        }
    }
    sk_X509_pop_free(chain, X509_free);
    x509_names_unref(names);
    return 0;
}
