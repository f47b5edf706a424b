/* entries: what is doubtful about a file, and files out of what SPIRE prints. Bad cases first. */
#include <postern/entries.h>
#include <postern/mem.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "kind: Entries\nlevel: 1\nentries:\n"

/* --- lint ------------------------------------------------------------------------------------- */
static void on_doubt(void *arg, const struct conf_entry *e, enum entries_doubt d, const char *text)
{
    assert_true(strlen(text) > 0);
    assert_true(buf_printf(arg, "%s:%s ", e->id, entries_doubt_name(d)));
}

static const struct {
    const char *entries, *doubts;
} lints[] = {
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n",
     "b:duplicate "},
    /* the same in another order */
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1', 'unix:gid:2']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/a', selectors: ['unix:gid:2', 'unix:uid:1']}\n",
     "b:duplicate "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1', 'unix:gid:2']}\n",
     "b:shadowed "},
    /* the narrower one first: both count */
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1', 'unix:gid:2']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n",
     ""},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/b', selectors: ['unix:uid:1']}\n",
     ""},
    /* a's does not fit containers, b's fits nothing else */
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/a', selectors: ['unix:uid:1', "
     "'container:runtime:docker']}\n",
     ""},
    {"- {id: a, spiffe_id: 'spiffe://td/ns/{k8s.ns}', selectors: ['k8s:container-name:x']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/ns/{k8s.ns}', selectors: ['k8s:container-name:x', "
     "'k8s:sa:y']}\n",
     "b:shadowed "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', hint: h, selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/b', hint: h, selectors: ['unix:uid:1', 'unix:gid:2']}\n",
     "b:hint_twice "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', hint: h, selectors: ['unix:uid:1']}\n"
     "- {id: b, spiffe_id: 'spiffe://td/b', hint: h, selectors: ['unix:uid:2']}\n",
     ""},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['k8s:container-name:x', 'unix:path:/x']}\n",
     "a:never "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['systemd:id:x.service', "
     "'container:runtime:docker']}\n",
     "a:never "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['container:runtime:docker']}\n",
     "a:broad "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['k8s:ns:x', 'k8s:sa:y']}\n",
     "a:no_container "},
    {"- {id: web-proxy, spiffe_id: 'spiffe://td/a', selectors: ['k8s:ns:x']}\n",
     "web-proxy:no_container web-proxy:no_executable "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['k8s:ns:x', "
     "'k8s:container-name:postern']}\n",
     "a:no_executable "},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['k8s:ns:x', 'k8s:container-name:postern', "
     "'unix:uid:1337']}\n",
     ""},
    {"- {id: a, spiffe_id: 'spiffe://td/a', selectors: ['k8s:ns:x', 'k8s:container-name:web']}\n",
     ""},
};

static void test_lint(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lints) / sizeof(lints[0]); i++) {
        mem_autofree char *text = mem_must_printf("%s%s", HEAD, lints[i].entries);
        struct conf_diag *diag = conf_diag_new();
        struct conf_entries *conf = NULL;
        struct buf said = BUF_INIT(10000);
        struct entries_tell tell = {on_doubt, &said};

        if (conf_parse_entries("/f", text, strlen(text), diag, &conf) != 0) {
            fail_msg("case %zu: %s", i, conf_diag_get(diag, 0)->what);
        }
        entries_lint(conf, &tell);
        if (!str_eq(buf_str(&said), str_of(lints[i].doubts))) {
            fail_msg("case %zu: \"%.*s\", expected \"%s\"", i, STR_ARG(buf_str(&said)),
                     lints[i].doubts);
        }
        buf_reset(&said);
        conf_entries_free(conf);
        conf_diag_free(diag);
    }
}

/* --- import ----------------------------------------------------------------------------------- */
static void on_problem(void *arg, const char *text)
{
    assert_true(buf_printf(arg, "%s\n", text));
}

#define ENTRY(id, more)                                                                            \
    "{\"id\":\"" id "\",\"spiffe_id\":{\"trust_domain\":\"td\",\"path\":\"/x\"},"                  \
    "\"parent_id\":{\"trust_domain\":\"td\",\"path\":\"/node\"}," more "}"
#define SELECTORS "\"selectors\":[{\"type\":\"unix\",\"value\":\"uid:1\"}]"
#define ENTRIES(text) "{\"entries\":[" text "],\"next_page_token\":\"\"}"

static const char *const no_import[] = {
    "",
    "{",
    "[]",
    "{}",
    "{\"entries\":{}}",
    "{\"entries\":[],\"entries\":[]}",
    "{\"entries\":[],\"other\":1}",
    "{\"entries\":[],\"next_page_token\":\"more\"}",
};

static void test_no_import(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(no_import) / sizeof(no_import[0]); i++) {
        struct buf out = BUF_INIT(100000), said = BUF_INIT(100000);
        struct entries_imported done;
        struct err err = ERR_INIT;

        if (entries_import(no_import[i], strlen(no_import[i]), &out, on_problem, &said, &done,
                           &err) == 0) {
            fail_msg("case %zu was taken", i);
        }
        assert_int_not_equal(err.code, ERR_NONE);
        buf_reset(&out);
        buf_reset(&said);
    }
}

/* Each is left out, and said why. */
static const struct {
    const char *json, *why;
} left_out[] = {
    {"1", "no entry"},
    {ENTRY("a", "\"selectors\":[]"), "no selectors"},
    {ENTRY("a", "\"selectors\":[{\"type\":\"unix\"}]"), "form"},
    {ENTRY("a", "\"selectors\":[{\"type\":\"docker\",\"value\":\"label:a:b\"}]"), "docker:label"},
    {ENTRY("a", "\"selectors\":[{\"type\":\"k8s\",\"value\":\"pod-owner:A:b\"}]"), "pod-owner"},
    {ENTRY("a", "\"selectors\":[{\"type\":\"unix\",\"value\":\"user:no-such-user-here\"}]"),
     "does not know"},
    {ENTRY("a", "\"selectors\":[{\"type\":\"unix\",\"value\":\"path:/a\\nb\"}]"), "control"},
    {ENTRY("a", SELECTORS ",\"admin\":true"), "admin"},
    {ENTRY("a", SELECTORS ",\"downstream\":true"), "downstream"},
    {ENTRY("a", SELECTORS ",\"store_svid\":true"), "store_svid"},
    {ENTRY("a", SELECTORS ",\"expires_at\":\"1552410266\""), "expires_at"},
    {ENTRY("a", SELECTORS ",\"federates_with\":[\"spiffe://o\"]"), "federates_with"},
    {ENTRY("a", SELECTORS ",\"new_key\":1"), "new_key"},
    {ENTRY("a", SELECTORS ",\"x509_svid_ttl\":1"), "ttl"},
    {ENTRY("a", SELECTORS ",\"x509_svid_ttl\":-1"), "x509_svid_ttl"},
    {ENTRY("a", SELECTORS ",\"dns_names\":[\"*.a\"]"), "dns_names"},
    {ENTRY("a", SELECTORS ",\"dns_names\":[1]"), "dns_names"},
    {"{\"id\":\"a\",\"spiffe_id\":{\"trust_domain\":\"td\",\"path\":\"/{k8s.ns}\"}," SELECTORS "}",
     "brace"},
    {"{\"id\":\"a\",\"spiffe_id\":{\"trust_domain\":\"TD\",\"path\":\"/x\"}," SELECTORS "}",
     "spiffe_id"},
    {"{\"spiffe_id\":{\"trust_domain\":\"td\",\"path\":\"/x\"}," SELECTORS "}", "no id"},
};

static void test_left_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++) {
        mem_autofree char *json =
            mem_must_printf("{\"entries\":[%s,%s]}", left_out[i].json, ENTRY("good", SELECTORS));
        struct buf out = BUF_INIT(100000), said = BUF_INIT(100000);
        struct entries_imported done;

        assert_int_equal(entries_import(json, strlen(json), &out, on_problem, &said, &done, NULL),
                         0);
        assert_true(buf_append(&said, "", 1));
        if (done.n != 1 || done.n_left_out != 1 ||
            strstr((const char *)buf_head(&said), left_out[i].why) == NULL) {
            fail_msg("case %zu: %s", i, (const char *)buf_head(&said));
        }
        buf_reset(&out);
        buf_reset(&said);
    }
}

static void test_import(void **state)
{
    static const char json[] = ENTRIES(ENTRY(
        "0e6ed5d1", "\"selectors\":[{\"type\":\"unix\",\"value\":\"uid:1\"},{\"type\":\"k8s\","
                    "\"value\":\"pod-label:a:it's\"}],\"x509_svid_ttl\":300,\"jwt_svid_ttl\":60,"
                    "\"federates_with\":[],\"admin\":false,\"downstream\":false,\"expires_at\":"
                    "\"0\",\"dns_names\":[\"a.b\"],\"revision_number\":\"3\",\"store_svid\":false,"
                    "\"hint\":\"internal\",\"created_at\":\"1678731397\""));
    struct buf out = BUF_INIT(100000), said = BUF_INIT(100000);
    struct conf_diag *diag = conf_diag_new();
    struct conf_entries *conf = NULL;
    struct entries_imported done;

    (void)state;
    assert_int_equal(entries_import(json, sizeof(json) - 1, &out, on_problem, &said, &done, NULL),
                     0);
    assert_int_equal(done.n, 1);
    assert_int_equal(buf_len(&said), 0);
    assert_int_equal(
        conf_parse_entries("/f", (const char *)buf_head(&out), buf_len(&out), diag, &conf), 0);
    assert_string_equal(conf->entries[0].id, "0e6ed5d1");
    assert_string_equal(conf->entries[0].spiffe_id, "spiffe://td/x");
    assert_string_equal(conf->entries[0].selectors[1].written, "k8s:pod-label:a:it's");
    assert_int_equal(conf->entries[0].ttl_s, 300);
    assert_int_equal(conf->entries[0].jwt_ttl_s, 60);
    assert_string_equal(conf->entries[0].dns_names.items[0], "a.b");
    assert_string_equal(conf->entries[0].hint, "internal");
    conf_entries_free(conf);
    conf_diag_free(diag);
    buf_reset(&out);
    buf_reset(&said);
}

/* Entries of two nodes in one file would all be given on one. Two of one id are one too many. */
static void test_parents_and_seconds(void **state)
{
    static const char parents[] = "{\"entries\":[" ENTRY(
        "a", SELECTORS) ",{\"id\":\"b\",\"spiffe_id\":{\"trust_domain\":\"td\",\"path\":\"/"
                        "x\"},\"parent_id\":{"
                        "\"trust_domain\":\"td\",\"path\":\"/other\"}," SELECTORS "}]}";
    static const char seconds[] = ENTRIES(ENTRY("a", SELECTORS) "," ENTRY("a", SELECTORS));
    struct buf out = BUF_INIT(100000), said = BUF_INIT(100000);
    struct entries_imported done;

    (void)state;
    assert_int_equal(
        entries_import(parents, sizeof(parents) - 1, &out, on_problem, &said, &done, NULL), 0);
    assert_true(buf_append(&said, "", 1));
    assert_non_null(strstr((const char *)buf_head(&said), "another parent"));
    buf_reset(&out);
    buf_reset(&said);
    assert_int_equal(
        entries_import(seconds, sizeof(seconds) - 1, &out, on_problem, &said, &done, NULL), 0);
    assert_int_equal(done.n, 1);
    assert_int_equal(done.n_left_out, 1);
    buf_reset(&out);
    buf_reset(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_import), cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_lint),      cmocka_unit_test(test_parents_and_seconds),
        cmocka_unit_test(test_import),
    };

    return cmocka_run_group_tests_name("entries", tests, NULL, NULL);
}
