#include "conf_cases.h"

#include <postern/conf_policy_test.h>
#include <postern/conf_rotate.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int conf_case_parse(enum conf_case_kind kind, const char *text, size_t len, struct buf *said)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *proxy = NULL;
    struct conf_mesh *mesh = NULL;
    struct conf_policy *policy = NULL;
    struct conf_agent *agent = NULL;
    struct conf_entries *entries = NULL;
    struct conf_modes *modes = NULL;
    struct conf_rotate *rotate = NULL;
    struct conf_policy_test *policy_test = NULL;
    int rc = -1;
    switch (kind) {
    case PROXY:
        rc = conf_parse_proxy("/etc/f.yaml", text, len, diag, &proxy);
        break;
    case GATEWAY:
        rc = conf_parse_gateway("/etc/f.yaml", text, len, diag, &proxy);
        break;
    case MESH:
        rc = conf_parse_mesh("/etc/f.yaml", text, len, diag, &mesh);
        break;
    case POLICY:
        rc = conf_parse_policy("/etc/f.yaml", text, len, diag, &policy);
        break;
    case AGENT:
        rc = conf_parse_agent("/etc/f.yaml", text, len, diag, &agent);
        break;
    case ENTRIES:
        rc = conf_parse_entries("/etc/f.yaml", text, len, diag, &entries);
        break;
    case MODES:
        rc = conf_parse_modes("/etc/f.yaml", text, len, diag, &modes);
        break;
    case ROTATE:
        rc = conf_parse_rotate("/etc/f.yaml", text, len, diag, &rotate);
        break;
    case POLICY_TEST:
        rc = conf_parse_policy_test("/etc/f.yaml", text, len, diag, &policy_test);
        break;
    }
    assert_int_equal(rc, conf_diag_count(diag) == 0 ? 0 : -1);
    assert_true(rc == 0 ||
                (proxy == NULL && mesh == NULL && policy == NULL && agent == NULL &&
                 entries == NULL && modes == NULL && rotate == NULL && policy_test == NULL));
    assert_true(conf_diag_print(diag, said));
    conf_proxy_free(proxy);
    conf_mesh_free(mesh);
    conf_policy_free(policy);
    conf_agent_free(agent);
    conf_entries_free(entries);
    conf_modes_free(modes);
    conf_rotate_free(rotate);
    conf_policy_test_free(policy_test);
    conf_diag_free(diag);
    return rc;
}

/* Compares line by line, with the file's name put before each expected line. */
static void check_said(const struct conf_case *t, const struct buf *said)
{
    struct buf want = BUF_INIT(65536);
    for (const char *p = t->said; *p != '\0';) {
        size_t n = strcspn(p, "\n") + 1;
        assert_true(buf_printf(&want, "/etc/f.yaml:%.*s", (int)n, p));
        p += n;
    }
    if (!str_eq(buf_str(&want), buf_str(said))) {
        print_message("--- for\n%s\n--- said\n%.*s\n--- expected\n%.*s\n", t->text,
                      (int)buf_len(said), (const char *)buf_head(said), (int)buf_len(&want),
                      (const char *)buf_head(&want));
        fail();
    }
    buf_reset(&want);
}

void conf_case_run(const struct conf_case *c)
{
    struct buf said = BUF_INIT(65536);
    assert_int_equal(conf_case_parse(c->kind, c->text, strlen(c->text), &said), -1);
    check_said(c, &said);
    buf_reset(&said);
}

void conf_cases_run(const struct conf_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        conf_case_run(&cases[i]);
    }
}

void conf_case_no_errors(struct conf_diag *diag)
{
    struct buf said = BUF_INIT(65536);
    conf_diag_print(diag, &said);
    if (conf_diag_count(diag) > 0) {
        print_message("%.*s", (int)buf_len(&said), (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    conf_diag_free(diag);
}
