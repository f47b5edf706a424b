/* test: expectations held against a policy, and what came of it for people, TAP and JUnit. */
#include <postern/policy_tools.h>

#include <postern/mem.h>
#include <postern/policy_question.h>
#include <stdlib.h>
#include <string.h>

enum { SAID_MAX = 256 * 1024 };

/* --- running -----------------------------------------------------------------------------------
 */
static char *take_text(struct buf *b)
{
    char *text = mem_must_strndup(buf_len(b) > 0 ? (const char *)buf_head(b) : "", buf_len(b));
    buf_reset(b);
    return text;
}

static bool same_name(const char *want, const char *have)
{
    return want == NULL || (have != NULL && strcmp(want, have) == 0);
}

static void say_verdict(const struct policy_verdict *v, struct buf *out)
{
    buf_printf(out, "%s", v->allow ? "allow" : "deny");
    if (v->rule != NULL) {
        buf_printf(out, " by rule \"%s\" (line %u)", v->rule, v->rule_line);
    } else {
        buf_printf(out, ": %s",
                   v->reason == POLICY_NONE_LOADED ? "no policy" : "no rule allows it");
    }
}

static char *say_difference(const struct conf_policy_case *test, const struct policy_question *q,
                            const struct policy_verdict *v)
{
    struct buf out = BUF_INIT(SAID_MAX);
    buf_printf(&out, "expected %s", test->expect == CONF_EXPECT_ALLOW ? "allow" : "deny");
    if (test->rule != NULL) {
        buf_printf(&out, " by rule \"%s\"", test->rule);
    }
    if (test->audit != NULL) {
        buf_printf(&out, ", marked by rule \"%s\"", test->audit);
    }
    if (test->shadow != NULL) {
        buf_printf(&out, ", which rule \"%s\" would turn", test->shadow);
    }
    buf_printf(&out, "; it is ");
    if (q->refused != HTTP1_NONE) {
        buf_printf(&out, "refused by the HTTP reader (%s: %s)", http1_reason_token(q->refused),
                   http1_reason_text(q->refused));
        return take_text(&out);
    }
    say_verdict(v, &out);
    if (test->audit != NULL) {
        buf_printf(&out, ", marked by %s", v->audit != NULL ? v->audit : "none");
    }
    if (test->shadow != NULL) {
        buf_printf(&out, ", turned by %s", v->shadow_rule != NULL ? v->shadow_rule : "none");
    }
    return take_text(&out);
}

static void run_case(const struct conf_policy_case *test, const struct conf_policy *conf,
                     const struct policy *p, int64_t now_s, struct policy_test_result *ret)
{
    mem_auto(policy_question_free) struct policy_question *q =
        policy_question_of(&test->request, now_s);
    struct policy_verdict v = {.reason = POLICY_NO_RULE};
    if (q->refused == HTTP1_NONE) {
        policy_decide(p, &q->query, &v);
    }
    ret->ok = v.allow == (test->expect == CONF_EXPECT_ALLOW) && same_name(test->rule, v.rule) &&
              same_name(test->audit, v.audit) && same_name(test->shadow, v.shadow_rule);
    if (ret->ok) {
        return;
    }
    struct buf why = BUF_INIT(SAID_MAX);
    ret->said = say_difference(test, q, &v);
    if (q->refused == HTTP1_NONE) {
        policy_tools_explain(conf, p, &q->query, false, &why);
    }
    ret->explanation = take_text(&why);
}

struct policy_test_result *policy_test_run(const struct conf_policy_test *test,
                                           const struct conf_policy *conf, const struct policy *p,
                                           int64_t now_s)
{
    struct policy_test_result *results = mem_must_calloc(test->n_cases + 1, sizeof(*results));
    for (size_t i = 0; i < test->n_cases; i++) {
        run_case(&test->cases[i], conf, p, now_s, &results[i]);
    }
    return results;
}

void policy_test_results_free(struct policy_test_result *results, size_t n)
{
    for (size_t i = 0; results != NULL && i < n; i++) {
        free(results[i].said);
        free(results[i].explanation);
    }
    free(results);
}

size_t policy_test_failed(const struct policy_test_result *results, size_t n)
{
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        failed += !results[i].ok;
    }
    return failed;
}

/* --- printing ----------------------------------------------------------------------------------
 */
/* Each line of a text behind an indent. */
static bool put_lines(struct buf *out, const char *indent, const char *text)
{
    bool ok = true;
    while (ok && *text != '\0') {
        size_t n = strcspn(text, "\n");
        ok = buf_printf(out, "%s%.*s\n", indent, (int)n, text);
        text += n + (text[n] == '\n');
    }
    return ok;
}

static bool print_text(const struct conf_policy_test *test,
                       const struct policy_test_result *results, struct buf *out)
{
    bool ok = true;
    for (size_t i = 0; ok && i < test->n_cases; i++) {
        const struct conf_policy_case *c = &test->cases[i];
        if (results[i].ok) {
            ok = buf_printf(out, "ok    %s\n", c->name);
            continue;
        }
        ok = buf_printf(out, "FAIL  %s (line %u)\n      %s\n", c->name, c->line, results[i].said) &&
             put_lines(out, "      ", results[i].explanation);
    }
    return ok && buf_printf(out, "%zu tests, %zu failed\n", test->n_cases,
                            policy_test_failed(results, test->n_cases));
}

/* A # would begin a directive, and a new line another test. */
static bool put_tap_name(struct buf *out, const char *name)
{
    bool ok = true;
    for (; ok && *name != '\0'; name++) {
        bool control = (unsigned char)*name < 0x20;
        bool sign = *name == '#' || *name == '\\';
        ok = control ? buf_printf(out, " ") : buf_printf(out, "%s%c", sign ? "\\" : "", *name);
    }
    return ok;
}

static bool print_tap(const struct conf_policy_test *test, const struct policy_test_result *results,
                      struct buf *out)
{
    bool ok = buf_printf(out, "TAP version 13\n1..%zu\n", test->n_cases);
    for (size_t i = 0; ok && i < test->n_cases; i++) {
        ok = buf_printf(out, "%s %zu - ", results[i].ok ? "ok" : "not ok", i + 1) &&
             put_tap_name(out, test->cases[i].name) && buf_printf(out, "\n");
        if (ok && !results[i].ok) {
            ok = buf_printf(out, "  ---\n  line: %u\n  message: |\n", test->cases[i].line) &&
                 put_lines(out, "    ", results[i].said) &&
                 put_lines(out, "    ", results[i].explanation) && buf_printf(out, "  ...\n");
        }
    }
    return ok;
}

static bool put_xml(struct buf *out, const char *text)
{
    bool ok = true;
    for (; ok && *text != '\0'; text++) {
        const char *as = *text == '&'   ? "&amp;"
                         : *text == '<' ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : *text == '"' ? "&quot;"
                                        : NULL;
        bool control = (unsigned char)*text < 0x20 && *text != '\n' && *text != '\t';
        ok = as != NULL ? buf_printf(out, "%s", as) : buf_append(out, control ? "?" : text, 1);
    }
    return ok;
}

static bool print_junit(const struct conf_policy_test *test,
                        const struct policy_test_result *results, struct buf *out)
{
    bool ok = buf_printf(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"") &&
              put_xml(out, test->path) &&
              buf_printf(out, "\" tests=\"%zu\" failures=\"%zu\">\n", test->n_cases,
                         policy_test_failed(results, test->n_cases));
    for (size_t i = 0; ok && i < test->n_cases; i++) {
        ok = buf_printf(out, "  <testcase classname=\"policy\" name=\"") &&
             put_xml(out, test->cases[i].name);
        if (results[i].ok) {
            ok = ok && buf_printf(out, "\"/>\n");
            continue;
        }
        ok = ok && buf_printf(out, "\">\n    <failure message=\"") &&
             put_xml(out, results[i].said) && buf_printf(out, "\">") &&
             put_xml(out, results[i].explanation) && buf_printf(out, "</failure>\n  </testcase>\n");
    }
    return ok && buf_printf(out, "</testsuite>\n");
}

bool policy_test_print(const struct conf_policy_test *test,
                       const struct policy_test_result *results, enum policy_test_form form,
                       struct buf *out)
{
    switch (form) {
    case POLICY_TEST_TEXT:
        return print_text(test, results, out);
    case POLICY_TEST_TAP:
        return print_tap(test, results, out);
    case POLICY_TEST_JUNIT:
        return print_junit(test, results, out);
    }
    return false;
}
