/* Verified chains that are remembered: a hit says what a verification would, and the bounds hold.
 */
#include "../../proxy/tls/tls_priv.h"

#include "certs.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char LEAF[] = "spiffe://a.b/leaf";

enum { ROOTS = 2, MIDDLES = 4, LEAVES = 8, PARTIES = 8, CHAINS = LEAVES * 4 };

struct world {
    struct certs_pair roots[ROOTS], middles[MIDDLES], leaves[LEAVES];
    struct tls_party *parties[PARTIES];
    STACK_OF(X509) * chains[CHAINS];
    struct tls_chains *known;
};

static struct certs_pair make(struct certs_spec spec, int64_t from_s, int64_t to_s,
                              const struct certs_pair *issuer)
{
    spec.not_before_s = CERTS_NOW + from_s;
    spec.not_after_s = CERTS_NOW + to_s;
    return certs_make(&spec, issuer);
}

static struct x509_peers *spiffe(const struct certs_pair *roots, size_t n)
{
    X509 *certs[ROOTS];
    for (size_t i = 0; i < n; i++) {
        certs[i] = roots[i].cert;
    }
    size_t len = 0;
    uint8_t *der = certs_der(certs, n, &len);
    struct x509_trust *trust = x509_trust_new();
    assert_int_equal(x509_trust_add(trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    struct x509_peers *p = x509_peers_new_spiffe(trust);
    x509_trust_unref(trust);
    free(der);
    return p;
}

static X509_CRL *empty_list(const struct certs_pair *issuer, int64_t next_s)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)(CERTS_NOW - 500));
    ASN1_TIME *to = ASN1_TIME_set(NULL, (time_t)(CERTS_NOW + next_s));
    assert_int_equal(X509_CRL_set_version(crl, X509_CRL_VERSION_2), 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert));
    X509_CRL_set1_lastUpdate(crl, from);
    X509_CRL_set1_nextUpdate(crl, to);
    assert_int_not_equal(X509_CRL_sign(crl, issuer->key, EVP_sha256()), 0);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return crl;
}

static struct x509_peers *ordinary(const struct certs_pair *root, bool lists)
{
    struct x509_peers *p = NULL;
    STACK_OF(X509) *cas = certs_stack(&root->cert, 1);
    STACK_OF(X509_CRL) *crls = lists ? sk_X509_CRL_new_null() : NULL;
    if (lists) {
        sk_X509_CRL_push(crls, empty_list(root, 100));
    }
    assert_int_equal(x509_peers_new_ordinary(cas, crls, &p, NULL), 0);
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    sk_X509_free(cas);
    return p;
}

/* Takes peers. */
static struct tls_party *party(const struct certs_pair *own, struct x509_peers *peers, bool server,
                               const char *name)
{
    const struct x509_svid svid = {
        .leaf = own->cert, .key = own->key, .intermediates = sk_X509_new_null()};
    const struct x509_svid *list[] = {&svid};
    struct x509_names *names = name != NULL ? x509_names_new(false) : NULL;
    if (names != NULL) {
        assert_int_equal(x509_names_add(names, X509_NAME_URI, str_of(name), NULL), 0);
    }
    const struct tls_party_spec spec = {
        .server = server, .own = list, .n_own = 1, .peers = peers, .names = names};
    struct tls_party *p = NULL;
    assert_int_equal(tls_party_new(&spec, &p, NULL), 0);
    x509_peers_unref(peers);
    x509_names_unref(names);
    sk_X509_free(svid.intermediates);
    return p;
}

static STACK_OF(X509) * chain(X509 *a, X509 *b, X509 *c)
{
    STACK_OF(X509) *s = sk_X509_new_null();
    X509 *all[] = {a, b, c};
    for (size_t i = 0; i < 3 && all[i] != NULL; i++) {
        X509_up_ref(all[i]);
        sk_X509_push(s, all[i]);
    }
    return s;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec ca = certs_ca("spiffe://a.b");
    for (int i = 0; i < ROOTS; i++) {
        w->roots[i] = make(ca, -600, 600, NULL);
    }
    /* Of the two roots in turn; the later ones begin late and end early. */
    for (int i = 0; i < MIDDLES; i++) {
        w->middles[i] = make(ca, -500 + 200 * (i / 2), 500 - 200 * (i / 2), &w->roots[i % 2]);
    }
    for (int i = 0; i < LEAVES; i++) {
        struct certs_spec leaf = certs_leaf(i == 5 ? "spiffe://a.b/other" : LEAF);
        leaf.purposes = i == 6 ? CERTS_CLIENT_AUTH : leaf.purposes;
        int narrow = i < 7 ? 50 * i : 0; /* the last one outlives its root's list */
        w->leaves[i] = make(leaf, -400 + narrow, 400 - narrow,
                            i == 7 ? &w->roots[0] : &w->middles[i % MIDDLES]);
        X509 *own = w->leaves[i].cert, *right = w->middles[i % MIDDLES].cert;
        w->chains[4 * i] = chain(own, right, NULL);
        w->chains[4 * i + 1] = chain(own, NULL, NULL);
        w->chains[4 * i + 2] = chain(own, w->middles[(i + 1) % MIDDLES].cert, NULL);
        w->chains[4 * i + 3] = chain(own, right, w->roots[i % 2].cert);
    }
    const struct certs_pair *own = &w->leaves[0];
    w->parties[0] = party(own, spiffe(w->roots, 1), true, NULL);
    w->parties[1] = party(own, spiffe(w->roots + 1, 1), true, NULL);
    w->parties[2] = party(own, spiffe(w->roots, 2), true, NULL);
    w->parties[3] = party(own, spiffe(w->roots, 2), false, NULL);
    w->parties[4] = party(own, spiffe(w->roots, 2), true, LEAF);
    w->parties[5] = party(own, ordinary(&w->roots[0], false), true, NULL);
    w->parties[6] = party(own, ordinary(&w->roots[0], true), true, NULL);
    w->parties[7] = party(own, ordinary(&w->roots[1], false), false, LEAF);
    w->known = tls_chains_new();
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    tls_chains_free(w->known);
    for (int i = 0; i < PARTIES; i++) {
        tls_party_unref(w->parties[i]);
    }
    for (int i = 0; i < CHAINS; i++) {
        sk_X509_pop_free(w->chains[i], X509_free);
    }
    for (int i = 0; i < LEAVES; i++) {
        certs_free(&w->leaves[i]);
    }
    for (int i = 0; i < MIDDLES; i++) {
        certs_free(&w->middles[i]);
    }
    for (int i = 0; i < ROOTS; i++) {
        certs_free(&w->roots[i]);
    }
    free(w);
    return 0;
}

struct answer {
    enum x509_verdict verdict;
    bool hit;
    struct tls_peer *peer;
};

static struct answer ask(struct world *w, const struct tls_party *by, STACK_OF(X509) * sent,
                         int64_t now_s)
{
    struct answer a = {.peer = NULL};
    struct x509_peer shown;
    const struct x509_ask q = {.leaf = sk_X509_value(sent, 0),
                               .chain = sent,
                               .is_server = !by->server,
                               .now_s = CERTS_NOW + now_s};
    a.verdict = tls_chains_judge(w->known, by, &q, &a.peer, &shown, NULL);
    a.hit = a.verdict == X509_OK && shown.id_len == 0;
    tls_peer_unref(a.peer); /* the cache has it still */
    return a;
}

/* Random chains, parties and times, many of them at the edges of what is valid. */
static void test_hit_equals_verification(void **state)
{
    struct world *w = *state;
    unsigned seed = 20261126, hits = 0, refusals = 0;
    int64_t now_s = 0;
    for (int i = 0; i < 3000; i++) {
        const struct tls_party *by = w->parties[rand_r(&seed) % PARTIES];
        /* The whole one mostly; and the clock stands still mostly. */
        int form = rand_r(&seed) % 3 == 0 ? rand_r(&seed) % 4 : 0;
        STACK_OF(X509) *sent = w->chains[4 * (rand_r(&seed) % LEAVES) + form];
        if (rand_r(&seed) % 64 == 0) {
            now_s = 50 * (rand_r(&seed) % 21 - 10) + rand_r(&seed) % 3 - 1;
        } else {
            now_s += rand_r(&seed) % 20 == 0;
        }
        struct x509_peer truth;
        const struct x509_ask q = {.leaf = sk_X509_value(sent, 0),
                                   .chain = sent,
                                   .is_server = !by->server,
                                   .now_s = CERTS_NOW + now_s};
        enum x509_verdict v = x509_peers_verify(by->peers, by->names, &q, &truth, NULL);
        struct answer a = ask(w, by, sent, now_s);
        if (a.verdict != v) {
            fail_msg("%d: %s, and verified %s, at %ld, %s", i, x509_verdict_name(a.verdict),
                     x509_verdict_name(v), (long)now_s, a.hit ? "a hit" : "no hit");
        }
        hits += a.hit;
        refusals += v != X509_OK;
        if (v == X509_OK) {
            assert_int_equal(a.peer->id_len, truth.id_len);
            assert_memory_equal(a.peer->id, truth.id, truth.id_len);
            assert_string_equal(a.peer->serial, truth.serial);
            assert_int_equal(a.peer->not_after_s, truth.not_after_s);
            assert_int_equal(a.peer->not_before_s, truth.not_before_s);
            assert_int_equal(a.peer->n_issuers, truth.n_issuers);
            assert_memory_equal(a.peer->issuers, truth.issuers,
                                truth.n_issuers * sizeof(truth.issuers[0]));
        }
    }
    if (hits < 200 || refusals < 1000) { /* it would have compared nothing */
        fail_msg("%u hits, %u refusals", hits, refusals);
    }
}

static void test_other_chains(void **state)
{
    struct world *w = *state;
    const struct tls_party *by = w->parties[2];
    assert_false(ask(w, by, w->chains[0], 0).hit);
    assert_true(ask(w, by, w->chains[0], 0).hit);
    /* Without its intermediate, with another one, with one more, under another party. */
    assert_int_equal(ask(w, by, w->chains[1], 0).verdict, X509_BAD_CHAIN);
    assert_int_equal(ask(w, by, w->chains[2], 0).verdict, X509_BAD_CHAIN);
    assert_false(ask(w, by, w->chains[3], 0).hit);
    assert_false(ask(w, w->parties[3], w->chains[0], 0).hit);
    assert_int_equal(ask(w, w->parties[1], w->chains[0], 0).verdict, X509_BAD_CHAIN);
    STACK_OF(X509) *turned = chain(w->leaves[0].cert, w->roots[0].cert, w->middles[0].cert);
    assert_false(ask(w, by, turned, 0).hit); /* right all the same: only the hash is another */
    sk_X509_pop_free(turned, X509_free);
    /* A refusal is not remembered: what was too early is right later. */
    assert_int_equal(ask(w, by, w->chains[0], -450).verdict, X509_EXPIRED);
    assert_int_equal(ask(w, by, w->chains[0], 450).verdict, X509_EXPIRED);
    assert_int_equal(ask(w, by, w->chains[0], 0).verdict, X509_OK);
}

/* A clock that has gone back behind the verification is reason to verify. */
static void test_clock_back(void **state)
{
    struct world *w = *state;
    assert_false(ask(w, w->parties[2], w->chains[0], 10).hit);
    assert_true(ask(w, w->parties[2], w->chains[0], 11).hit);
    assert_false(ask(w, w->parties[2], w->chains[0], 9).hit);
    assert_true(ask(w, w->parties[2], w->chains[0], 9).hit);
}

static void test_bounds(void **state)
{
    struct world *w = *state;
    struct tls_peer *kept = NULL;
    struct x509_peer shown;
    for (int i = 0; i < 300; i++) {
        struct certs_pair leaf = make(certs_leaf(LEAF), -60, 300, &w->middles[0]);
        STACK_OF(X509) *sent = chain(leaf.cert, w->middles[0].cert, NULL);
        const struct x509_ask q = {.leaf = leaf.cert, .chain = sent, .now_s = CERTS_NOW};
        struct tls_peer *peer = NULL;
        assert_int_equal(tls_chains_judge(w->known, w->parties[0], &q, &peer, &shown, NULL),
                         X509_OK);
        if (i == 0) {
            kept = tls_peer_ref(peer);
        }
        tls_peer_unref(peer);
        sk_X509_pop_free(sent, X509_free);
        certs_free(&leaf);
    }
    assert_int_equal(tls_chains_count(w->known), 256);
    /* Gone from the memory, and whole for whoever uses it. */
    assert_null(tls_chains_find(w->known, w->parties[0], kept->chain_sha256, CERTS_NOW));
    assert_int_equal(kept->refs, 1);
    assert_string_equal(kept->id, LEAF);
    tls_peer_unref(kept);
}

/* Certificates are renewed, and what was verified before is never asked for again: a soak of half
 * an hour with certificates of a minute had its proxies grow by 2 to 3 MB, the cache filling up. */
static void test_tidy(void **state)
{
    struct world *w = *state;
    enum { STEP_S = 30, LAST_USE = 19, GONE = 40 };
    struct certs_pair root = make(certs_ca("spiffe://a.b"), -60, 5000, NULL);
    struct certs_pair lasting = make(certs_leaf(LEAF), -60, 5000, &root);
    struct tls_party *by = party(&lasting, spiffe(&root, 1), true, NULL);
    STACK_OF(X509) *its = chain(lasting.cert, NULL, NULL);
    for (int i = 0; i < 2 * GONE; i++) {
        int64_t now_s = (int64_t)STEP_S * i;
        struct certs_pair leaf = make(certs_leaf(LEAF), now_s - 10, now_s + STEP_S + 15, &root);
        STACK_OF(X509) *sent = chain(leaf.cert, NULL, NULL);
        assert_int_equal(ask(w, by, sent, now_s).verdict, X509_OK);
        assert_true(ask(w, by, sent, now_s).hit);
        if (i <= LAST_USE) {
            struct answer a = ask(w, by, its, now_s);
            assert_int_equal(a.verdict, X509_OK);
            assert_int_equal(a.hit, i > 0);
        }
        /* This one, the one before it, and the lasting one until nobody sent it for ten minutes. */
        assert_int_equal(tls_chains_count(w->known), i == 0 ? 2 : i < GONE ? 3 : 2);
        sk_X509_pop_free(sent, X509_free);
        certs_free(&leaf);
    }
    tls_chains_tidy(w->known, CERTS_NOW + INT64_C(2) * STEP_S * GONE + STEP_S);
    assert_int_equal(tls_chains_count(w->known), 0);
    sk_X509_pop_free(its, X509_free);
    tls_party_unref(by);
    certs_free(&lasting);
    certs_free(&root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hit_equals_verification, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tidy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
