/* conf: level 2 of a Policy file: what is refused, with its place, and what it means. */
#include <postern/conf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants these first */
#include <cmocka.h>

#define HEAD "kind: Policy\nlevel: 2\n"
#define ONE HEAD "rules:\n- {name: r, action: ALLOW, "
#define FIRST "kind: Policy\nlevel: 1\nrules:\n- {name: r, action: ALLOW, "
#define ROLES HEAD "roles:\n- {name: q, to: [{methods: [GET], paths: [/a]}]}\nrules:\n"
#define NEEDS "needs feature level 2, the file says 1; write 'level: 2'"

static const struct {
    const char *text, *want; /* within the first error */
} refused[] = {
    /* what level 1 has not */
    {FIRST "mode: enforce}\n", "4:28: 'mode' " NEEDS},
    {FIRST "reason: x}\n", "'reason' " NEEDS},
    {FIRST "expires: 2027-01-31}\n", "'expires' " NEEDS},
    {FIRST "role: q}\n", "'role' " NEEDS},
    {FIRST "from: [{namespaces: [a]}]}\n", "4:36: 'namespaces' " NEEDS},
    {FIRST "from: [{claims: [{name: a, present: true}]}]}\n", "'claims' " NEEDS},
    {FIRST "from: [{principals: ['spiffe://t/*/a']}]}\n",
     "'principals' with * as a segment " NEEDS},
    {FIRST "from: [{principals: ['spiffe://t/a/**']}]}\n",
     "'principals' with * as a segment " NEEDS},
    {FIRST "target: {principals: ['spiffe://t/*/a']}}\n",
     "'principals' with * as a segment " NEEDS},
    {FIRST "to: [{paths: ['/a/{}']}]}\n", "'paths' with a template " NEEDS},
    {FIRST "to: [{query: [{name: a, present: true}]}]}\n", "'query' " NEEDS},
    {FIRST "to: [{headers: [{name: a, present: true}]}]}\n", "'headers' " NEEDS},
    {FIRST "to: [{grpc: [a.B/C]}]}\n", "'grpc' " NEEDS},
    {"kind: Policy\nlevel: 1\nrules:\n- {name: r, action: AUDIT}\n",
     "4:21: the action AUDIT " NEEDS},
    {"kind: Policy\nlevel: 1\nroles: []\nrules: []\n", "3:1: 'roles' " NEEDS},
    {"kind: Policy\nlevel: 3\nnever: heard\n", "2:8: needs feature level 3"},
    /* a rule */
    {ONE "mode: try}\n", "'mode' is 'try', no such value, expected enforce or dry-run"},
    {ONE "reason: ''}\n", "'reason' is empty"},
    {ONE "reason: \"a\\nb\"}\n", "with a control character"},
    {ONE "reason: \"a\\u009bb\"}\n", "with a control character"},
    {ONE "expires: tomorrow}\n", "no such time, expected such as 2027-01-31, its end, or"},
    {ONE "expires: 2027-02-29}\n", "no such time"},
    {ONE "expires: 2100-02-29}\n", "no such time"},
    {ONE "expires: 2027-13-01}\n", "no such time"},
    {ONE "expires: 2027-01-00}\n", "no such time"},
    {ONE "expires: 1969-12-31}\n", "no such time"},
    {ONE "expires: '1970-01-01T00:00:00Z'}\n", "no such time"},
    {ONE "expires: '2027-01-31T24:00:00Z'}\n", "no such time"},
    {ONE "expires: '2027-01-31T10:00:00'}\n", "no such time"},
    {ONE "expires: '2027-01-31T10:00:00+01:00'}\n", "no such time"},
    {ONE "expires: '2027-01-31 10:00:00Z'}\n", "no such time"},
    {ONE "expires: 20270131}\n", "no such time"},
    /* globs */
    {ONE "from: [{principals: ['spiffe://t/a*/*/x']}]}\n", "a * stands for a whole segment"},
    {ONE "from: [{principals: ['spiffe://t/*/x*']}]}\n", "a * stands for a whole segment"},
    {ONE "from: [{principals: ['spiffe://t/*/***']}]}\n", "a * stands for a whole segment"},
    {ONE "from: [{principals: ['spiffe://t/**/x']}]}\n", "** may stand at the end only"},
    {ONE "from: [{principals: ['spiffe://*/a/*/b']}]}\n", "with a * for the trust domain"},
    {ONE "from: [{principals: ['spiffe://*.t/a/*/b']}]}\n", "a * stands for a whole segment"},
    {ONE "from: [{principals: ['spiffe://*/a']}]}\n", "one * may stand at the beginning"},
    {ONE "from: [{principals: ['spiffe://t/*/']}]}\n", "'principals' holds"},
    {ONE "from: [{principals: ['spiffe://t/*/../b']}]}\n", "'principals' holds"},
    {ONE "from: [{namespaces: ['a/b']}]}\n", "which no segment of a SPIFFE ID can be"},
    {ONE "from: [{namespaces: ['a*b']}]}\n", "one * may stand at the beginning"},
    {ONE "from: [{namespaces: []}]}\n", "'namespaces' is an empty list"},
    {ONE "from: [{service_accounts: ['']}]}\n", "'service_accounts' is empty"},
    /* templates */
    {ONE "to: [{paths: ['a/{}']}]}\n", "which does not begin with /"},
    {ONE "to: [{paths: ['/a{}']}]}\n", "{} and {**} stand for whole segments"},
    {ONE "to: [{paths: ['/{}/a{**}']}]}\n", "{} and {**} stand for whole segments, and * for none"},
    {ONE "to: [{paths: ['/{*}']}]}\n", "'paths' holds '/{*}'"},
    {ONE "to: [{paths: ['/{id}']}]}\n", "{} and {**} stand for whole segments"},
    {ONE "to: [{paths: ['/{}/*']}]}\n", "and * for none"},
    {ONE "to: [{paths: ['/{**}/{}']}]}\n", "nothing of the kind may follow {**}"},
    {ONE "to: [{paths: ['/{**}/a/{**}']}]}\n", "nothing of the kind may follow {**}"},
    {ONE "to: [{paths: ['/{}/a?x']}]}\n", "paths are judged without their query"},
    {ONE "to: [{paths: ['/{}/%zz']}]}\n", "with a % that stands for no byte"},
    /* named values */
    {ONE "to: [{headers: [{name: a}]}]}\n", "neither 'values' nor 'present'"},
    {ONE "to: [{headers: [{name: a, values: [b], present: true}]}]}\n",
     "both 'values' and 'present'"},
    {ONE "to: [{headers: [{name: a, present: false}]}]}\n", "'present' is not true"},
    {ONE "to: [{headers: [{name: a, values: []}]}]}\n", "'values' is an empty list"},
    {ONE "to: [{headers: [{values: [b]}]}]}\n", "missing key 'name'"},
    {ONE "to: [{headers: [{name: 'a b', present: true}]}]}\n", "which no header's name can be"},
    {ONE "to: [{headers: [{name: ':path', present: true}]}]}\n", "which no header's name can be"},
    {ONE "to: [{headers: [{name: 'x-*', present: true}]}]}\n", "which no header's name can be"},
    {ONE "to: [{headers: [{name: Host, present: true}]}]}\n", "write 'hosts'"},
    {ONE "to: [{headers: [{name: Cookie, present: true}]}]}\n", "nothing that rules can rely on"},
    {ONE "to: [{headers: [{name: TE, present: true}]}]}\n", "nothing that rules can rely on"},
    {ONE "to: [{headers: [{name: x-forwarded-client-cert, present: true}]}]}\n",
     "write 'principals'"},
    {ONE "to: [{headers: [{name: a, values: [' b']}]}]}\n", "has no blank at its ends"},
    {ONE "to: [{headers: [{name: a, values: ['b*c']}]}]}\n", "one * may stand at the beginning"},
    {ONE "to: [{headers: [{name: X-A, values: [a]}, {name: x-a, values: [b]}]}]}\n",
     "'x-a' stands twice, where all elements have to hold"},
    {ONE "to: [{query: [{name: a, values: ['%41']}]}]}\n", "where values are compared as decoded"},
    {ONE "to: [{query: [{name: 'a*', present: true}]}]}\n", "which is no pattern here"},
    {ONE "from: [{claims: [{name: a..b, present: true}]}]}\n", "an empty name between its dots"},
    {ONE "from: [{claims: [{name: .a, present: true}]}]}\n", "an empty name between its dots"},
    {ONE "from: [{claims: [{name: 'a\\b', present: true}]}]}\n", "with a \\ before no . or \\"},
    {ONE "from: [{claims: [{name: a.b.c.d.e.f.g.h.i, present: true}]}]}\n", "deeper than 8 names"},
    /* gRPC */
    {ONE "to: [{grpc: [a.B]}]}\n", "names no service and method"},
    {ONE "to: [{grpc: [/a.B/C]}]}\n", "leave the / at its beginning out"},
    {ONE "to: [{grpc: [a.B/]}]}\n", "names no service and method"},
    {ONE "to: [{grpc: [a.B/C*]}]}\n", "which is no service and method"},
    {ONE "to: [{grpc: ['*/*']}]}\n", "which is no service and method"},
    {ONE "to: [{grpc: [a.B/C/D]}]}\n", "which is no service and method"},
    /* roles */
    {ROLES "- {name: r, action: ALLOW, role: p}\n", "6:34: no such role 'p'"},
    {ROLES "- {name: r, action: ALLOW, role: [q, qq]}\n",
     "6:38: no such role 'qq', expected a name of "
     "'roles'; did you mean 'q'?"},
    {ROLES "- {name: r, action: ALLOW, role: []}\n", "'role' is an empty list"},
    {ROLES "- {name: r, action: ALLOW, role: q, to: [{ports: [1]}, {paths: [/b]}]}\n",
     "'paths' stands in role 'q' and in 'to' of the rule"},
    {HEAD "roles:\n- {name: q}\nrules: []\n", "missing key 'to'"},
    {HEAD "roles:\n- {name: q, to: [{ports: [1]}]}\n- {name: q, to: [{ports: [2]}]}\nrules: []\n",
     "role 'q' twice"},
    {HEAD "roles: []\nrules: []\n", "'roles' is an empty list"},
};

static int parse(const char *text, struct buf *said, struct conf_policy **ret)
{
    struct conf_diag *diag = conf_diag_new();
    int r = conf_parse_policy("p.yaml", text, strlen(text), diag, ret);
    assert_true(conf_diag_print(diag, said) && buf_append(said, "", 1));
    conf_diag_free(diag);
    return r;
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct buf said = BUF_INIT(65536);
        struct conf_policy *p = NULL;
        int r = parse(refused[i].text, &said, &p);
        if (r != -1 || strstr((const char *)buf_head(&said), refused[i].want) == NULL) {
            fail_msg("%s\nsaid: %s\nwant: %s", refused[i].text, (const char *)buf_head(&said),
                     refused[i].want);
        }
        buf_reset(&said);
    }
}

static struct conf_policy *must_parse(const char *text)
{
    struct buf said = BUF_INIT(65536);
    struct conf_policy *p = NULL;
    if (parse(text, &said, &p) != 0) {
        fail_msg("%s\nsaid: %s", text, (const char *)buf_head(&said));
    }
    buf_reset(&said);
    return p;
}

static void test_meaning(void **state)
{
    (void)state;
    struct conf_policy *p = must_parse(
        HEAD
        "rules:\n- name: r\n  action: AUDIT\n  mode: dry-run\n  reason: because\n"
        "  expires: 2028-02-29\n  from:\n  - {namespaces: ['*'], not_service_accounts: [a, 'b*'],\n"
        "     claims: [{name: 'https://x\\.y/z.k', values: ['*', a]}]}\n  to:\n"
        "  - {headers: [{name: X-Env, values: [Test]}, {name: a, present: true}],\n"
        "     not_query: [{name: d, present: true}], grpc: [a.B/C, 'a.B/*'],\n"
        "     paths: ['/a/{}/%7B/{**}/z']}\n");
    const struct conf_rule *r = &p->rules[0];
    assert_int_equal(r->action, CONF_AUDIT);
    assert_int_equal(r->mode, CONF_DRY_RUN);
    assert_string_equal(r->reason, "because");
    assert_int_equal(r->expires_s, 1835481600); /* 2028-03-01T00:00:00Z */
    assert_int_equal(r->from[0].namespaces.n, 1);
    assert_string_equal(r->from[0].not_service_accounts.items[1], "b*");
    assert_string_equal(r->from[0].claims.items[0].name, "https://x\\.y/z.k");
    assert_int_equal(r->from[0].claims.items[0].values.n, 2);
    assert_true(conf_policy_from_wants_request(&r->from[0]));
    assert_string_equal(r->to[0].headers.items[0].name, "x-env");
    assert_string_equal(r->to[0].headers.items[0].values.items[0], "Test");
    assert_true(r->to[0].headers.items[1].present);
    assert_int_equal(r->to[0].headers.items[1].values.n, 0);
    assert_true(r->to[0].not_query.items[0].present);
    assert_int_equal(r->to[0].grpc.n, 2);
    assert_true(conf_is_template(r->to[0].paths.items[0]));
    assert_true(conf_policy_to_wants_request(&r->to[0]));
    conf_policy_free(p);
}

static void test_times(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } times[] = {
        {"1970-01-01", 86400},      {"2000-02-29T00:00:01Z", 951782401},
        {"2027-01-31", 1801440000}, {"2027-01-31T18:30:59Z", 1801420259},
        {"2100-03-01", 4107628800}, {"9999-12-31", 253402300800},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        char text[200];
        snprintf(text, sizeof(text), ONE "expires: '%s'}\n", times[i].text);
        struct conf_policy *p = must_parse(text);
        assert_int_equal(p->rules[0].expires_s, times[i].want);
        conf_policy_free(p);
    }
}

static void test_forms(void **state)
{
    static const struct {
        const char *text;
        bool glob, template;
    } forms[] = {
        {"spiffe://t/a", false, false},
        {"spiffe://t/*", false, false},
        {"spiffe://t/a/*", false, false},
        {"spiffe://t/*/a", true, false},
        {"spiffe://t/*/*", true, false},
        {"spiffe://t/**", true, false},
        {"spiffe://t/a/**", true, false},
        {"*/a", false, false},
        {"*", false, false},
        {"uri:spiffe://t/*/a", false, false},
        {"/a/{}", false, true},
        {"/{}/a", false, true},
        {"/a/{**}", false, true},
        {"/a{}", false, false},
        {"/%7B%7D", false, false},
        {"/{}{}", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        assert_int_equal(conf_is_glob(forms[i].text), forms[i].glob);
        assert_int_equal(conf_is_template(forms[i].text), forms[i].template);
    }
}

/* With `to` beside it, each pair is one entry; of `not_` lists both parts. */
static void test_roles(void **state)
{
    (void)state;
    struct conf_policy *p =
        must_parse(HEAD "roles:\n"
                        "- {name: a, to: [{methods: [GET], not_paths: [/x]}, {grpc: [s/M]}]}\n"
                        "- {name: b, to: [{headers: [{name: h, values: [v]}]}]}\n"
                        "rules:\n- {name: one, action: ALLOW, role: a}\n"
                        "- {name: two, action: DENY, role: [a, b],\n"
                        "   to: [{ports: [1], not_paths: [/y]}, {hosts: [h]}]}\n");
    assert_int_equal(p->n_roles, 2);
    assert_int_equal(p->roles[1].line, 5);
    const struct conf_rule *one = &p->rules[0], *two = &p->rules[1];
    assert_int_equal(one->n_to, 2);
    assert_string_equal(one->roles.items[0], "a");
    assert_string_equal(one->to[0].methods.items[0], "GET");
    assert_string_equal(one->to[1].grpc.items[0], "s/M");
    assert_int_equal(two->n_to, 6);
    assert_int_equal(two->roles.n, 2);
    assert_int_equal(two->to[0].ports[0], 1);
    assert_string_equal(two->to[0].methods.items[0], "GET");
    assert_int_equal(two->to[0].not_paths.n, 2);
    assert_string_equal(two->to[0].not_paths.items[1], "/y");
    assert_int_equal(two->to[1].n_ports, 0);
    assert_string_equal(two->to[1].hosts.items[0], "h");
    assert_string_equal(two->to[5].headers.items[0].name, "h");
    assert_string_equal(two->to[5].hosts.items[0], "h");
    conf_policy_free(p);
}

/* A role may be long and be used often, but not without end. */
static void test_roles_bounded(void **state)
{
    struct buf text = BUF_INIT(4 * 1024 * 1024);
    struct buf said = BUF_INIT(65536);
    struct conf_policy *p = NULL;
    (void)state;
    assert_true(buf_printf(&text, HEAD "roles:\n- name: q\n  to:\n"));
    for (int i = 0; i < 100; i++) {
        assert_true(buf_printf(&text, "  - {methods: [GET]}\n"));
    }
    assert_true(buf_printf(&text, "rules:\n- name: r\n  action: ALLOW\n  role: q\n  to:\n"));
    for (int i = 0; i < 100; i++) {
        assert_true(buf_printf(&text, "  - {ports: [%d]}\n", i + 1));
    }
    assert_true(buf_append(&text, "", 1));
    assert_int_equal(parse((const char *)buf_head(&text), &said, &p), -1);
    assert_non_null(strstr((const char *)buf_head(&said), "makes 10000 entries, more than 4096"));
    buf_reset(&text);
    buf_reset(&said);
}

/* --- parts, as an agent hands them on --------------------------------------------------------- */
struct parts {
    struct buf text;
    size_t n, n_targets;
};

static int on_part(void *arg, const struct conf_part *part)
{
    struct parts *s = arg;
    bool ok =
        part->line == 0
            ? buf_printf(&s->text, "{%.*s, \"rules\": [", (int)part->text.n, part->text.p)
            : buf_printf(&s->text, "%s%.*s", s->n > 1 ? ", " : "", (int)part->text.n, part->text.p);
    s->n++;
    s->n_targets += part->targets != NULL ? part->targets->n : 0;
    return ok ? 0 : -1;
}

/* Roles travel in the head, so that what is put together says the same. */
static void test_split(void **state)
{
    static const char text[] =
        HEAD "roles:\n- {name: q, to: [{methods: [GET], paths: ['/a/{}']}]}\n"
             "rules:\n- {name: one, action: ALLOW, role: q, expires: 2027-01-31, mode: dry-run,\n"
             "   reason: \"it's \\\"so\\\"\", target: {principals: ['spiffe://t/*/x']}}\n"
             "- {name: two, action: AUDIT, from: [{claims: [{name: 'a\\.b', present: true}]}]}\n";
    struct parts s = {.text = BUF_INIT(65536)};
    struct conf_diag *diag = conf_diag_new();
    (void)state;
    assert_int_equal(
        conf_split(CONF_DOCUMENT_POLICY, "p.yaml", text, sizeof(text) - 1, diag, on_part, &s), 0);
    conf_diag_free(diag);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.n_targets, 1);
    assert_true(buf_printf(&s.text, "]}") && buf_append(&s.text, "", 1));
    struct conf_policy *p = must_parse((const char *)buf_head(&s.text));
    assert_int_equal(p->n_rules, 2);
    assert_int_equal(p->rules[0].n_to, 1);
    assert_string_equal(p->rules[0].to[0].paths.items[0], "/a/{}");
    assert_int_equal(p->rules[0].expires_s, 1801440000);
    assert_int_equal(p->rules[0].mode, CONF_DRY_RUN);
    assert_string_equal(p->rules[0].reason, "it's \"so\"");
    assert_string_equal(p->rules[0].roles.items[0], "q");
    assert_int_equal(p->rules[1].action, CONF_AUDIT);
    assert_string_equal(p->rules[1].from[0].claims.items[0].name, "a\\.b");
    conf_policy_free(p);
    buf_reset(&s.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_times),   cmocka_unit_test(test_forms),
        cmocka_unit_test(test_roles),   cmocka_unit_test(test_roles_bounded),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
