/* Rotate files: what is refused and how it is said; what a good one comes to. */
#include <postern/conf_rotate.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <postern/mem.h>
#include <string.h>

#define HEAD "kind: Rotate\nlevel: 1\n"
#define OUT(rest) HEAD "outputs:\n- {name: a, directory: /d, " rest "}\n"

static const struct {
    const char *text;
    const char *said; /* a part of what is said */
} bad[] = {
    {HEAD, "1:1: missing key 'outputs'"},
    {HEAD "outputs: []\n", "at least one element"},
    {OUT("layout: files"), "4:3: an output without files"},
    {OUT("files: []"), "at least one element"},
    {OUT("layout: apache"), "'layout' is 'apache', no such value"},
    {OUT("files: [{name: a/b, what: key}]"), "'name' is 'a/b', which is not the plain name"},
    {OUT("files: [{name: .., what: key}]"), "which is not the plain name"},
    {OUT("files: [{name: ..data, what: key}]"), "which is not the plain name"},
    {OUT("files: [{name: ., what: key}]"), "which is not the plain name"},
    {OUT("files: [{name: a, what: keys}]"), "did you mean 'key'?"},
    {OUT("files: [{name: a, what: key}, {name: a, what: chain}]"), "file 'a' twice"},
    {OUT("files: [{name: a, what: chain, order: key-first}]"), "a file of 'chain' has no 'order'"},
    {OUT("files: [{name: a, what: key, trust: all}]"), "a file of 'key' has no 'trust'"},
    {OUT("files: [{name: a, what: key, audience: [b]}]"), "a file of 'key' has no 'audience'"},
    {OUT("files: [{name: a, what: jwt}]"), "missing key 'audience' of a 'jwt'"},
    {OUT("files: [{name: a, what: jwks, trust: all}]"), "a file of 'jwks' has no 'trust'"},
    {OUT("files: [{name: a, what: jwt-bundles, trust_domain: a.org}]"),
     "a file of 'jwt-bundles' has no 'trust_domain'"},
    {OUT("files: [{name: a, what: bundle, trust: all, trust_domain: b}]"),
     "both 'trust' and 'trust_domain'"},
    {OUT("layout: separate, files: [{name: tls.key, what: key}]"),
     "file 'tls.key' is in layout 'separate' already"},
    {OUT("layout: separate, mode: '0644'"), "'mode' lets everybody at keys"},
    {OUT("layout: separate, mode: '0641'"), "'mode' lets everybody at keys"},
    {OUT("layout: separate, mode: '0660'"), "'mode' is not one for files that are read only"},
    {OUT("layout: separate, mode: '0040'"), "'mode' is not one for files that are read only"},
    {OUT("layout: separate, mode: rw-------"), "'mode' is 'rw-------', not a mode"},
    {OUT("layout: separate, mode: '4600'"), "not a mode of reading, writing and executing alone"},
    {OUT("layout: separate, mode: '00600'"), "not a mode"},
    {OUT("layout: separate, public_mode: '0666'"), "'public_mode' is not one"},
    {OUT("layout: separate, public_mode: '0755'"), "'public_mode' is not one"},
    {OUT("layout: separate, owner: no-such-user-here"), "a user that this machine does not know"},
    {OUT("layout: separate, group: no-such-group-here"), "a group that this machine does not know"},
    {OUT("layout: separate, passphrase_file: p"), "of an output without 'pkcs12'"},
    {OUT("layout: separate, keep: 0"), "too little"},
    {OUT("layout: separate, identity: {key: p256}"), "'key' is 'p256', no such value"},
    {OUT("layout: separate") "- {name: a, directory: /e, layout: nginx}\n", "output 'a' twice"},
    {OUT("layout: separate") "- {name: b, directory: /d, layout: nginx}\n", "directory '/d' twice"},
    {OUT("layout: separate") "renew: {at: 50}\n", "'at' is '50', not a part in percent"},
    {OUT("layout: separate") "renew: {at: 95%}\n", "'at' is '95%', too much"},
    {OUT("layout: separate") "renew: {at: 80%, jitter: 20%}\n", "'jitter' reaches beyond"},
    {OUT("layout: separate") "renew: {at: 10%, jitter: 20%}\n", "'jitter' reaches beyond"},
    {OUT("layout: separate") "renew: {at: 70%}\nwarn_before_expiry: 30%\n",
     "warns before it renews"},
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct conf_diag *diag = conf_diag_new();
        struct conf_rotate *conf = NULL;
        struct buf said = BUF_INIT(65536);
        int rc = conf_parse_rotate("/etc/f.yaml", bad[i].text, strlen(bad[i].text), diag, &conf);
        assert_true(conf_diag_print(diag, &said) && buf_append(&said, "", 1));
        if (rc != -1 || conf_diag_count(diag) != 1 ||
            strstr((const char *)buf_head(&said), bad[i].said) == NULL) {
            print_message("--- for\n%s--- said\n%s--- expected\n%s\n", bad[i].text,
                          (const char *)buf_head(&said), bad[i].said);
            fail();
        }
        assert_null(conf);
        buf_reset(&said);
        conf_diag_free(diag);
    }
}

static struct conf_rotate *good(const char *text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    struct buf said = BUF_INIT(65536);
    if (conf_parse_rotate("/etc/f.yaml", text, strlen(text), diag, &conf) != 0) {
        assert_true(conf_diag_print(diag, &said));
        print_message("%.*s", (int)buf_len(&said), (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    conf_diag_free(diag);
    return conf;
}

static void test_defaults(void **state)
{
    (void)state;
    struct conf_rotate *c = good(OUT("layout: separate"));
    const struct conf_rotate_output *o = &c->outputs[0];
    assert_int_equal(c->renew_at, 50);
    assert_int_equal(c->renew_jitter, 10);
    assert_int_equal(c->warn_before_expiry, 20);
    assert_non_null(c->name);
    assert_null(c->socket);
    assert_int_equal(o->mode, 0600);
    assert_int_equal(o->public_mode, 0644);
    assert_int_equal(o->keep, 2);
    assert_true(o->omit_expired);
    assert_false(o->replace_files || o->has_owner || o->has_group);
    assert_int_equal(o->n_files, 3);
    assert_string_equal(o->files[1].name, "tls.key");
    assert_int_equal(o->files[1].what, CONF_ROTATE_KEY);
    conf_rotate_free(c);
}

/* A layout's files stand before those that are named. */
static void test_layout_and_files(void **state)
{
    (void)state;
    struct conf_rotate *c = good(
        OUT("layout: java, passphrase_file: p, files: [{name: t, what: jwt, audience: [x, y]}]"));
    const struct conf_rotate_output *o = &c->outputs[0];
    assert_int_equal(o->n_files, 3);
    assert_string_equal(o->files[0].name, "keystore.p12");
    assert_int_equal(o->files[1].what, CONF_ROTATE_TRUSTSTORE);
    assert_string_equal(o->files[2].name, "t");
    assert_int_equal(o->files[2].audience.n, 2);
    assert_string_equal(o->passphrase_file, "/etc/p");
    conf_rotate_free(c);
}

/* Names and numbers; the owner's own group, unless another one is named. */
static void test_owner(void **state)
{
    (void)state;
    struct conf_rotate *c = good(OUT("layout: separate, owner: root, group: '12345'"));
    assert_true(c->outputs[0].has_owner && c->outputs[0].has_group);
    assert_int_equal(c->outputs[0].uid, 0);
    assert_int_equal(c->outputs[0].gid, 12345);
    conf_rotate_free(c);
    c = good(OUT("layout: separate, owner: '54321'"));
    assert_int_equal(c->outputs[0].uid, 54321);
    assert_int_equal(c->outputs[0].gid, 54321);
    conf_rotate_free(c);
    c = good(OUT("layout: separate, group: root, mode: 0640"));
    assert_false(c->outputs[0].has_owner);
    assert_true(c->outputs[0].has_group);
    assert_int_equal(c->outputs[0].mode, 0640);
    conf_rotate_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_layout_and_files),
        cmocka_unit_test(test_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
