/*
 * Who reads a policy, as a text; and manifests of Istio and Kubernetes. Properties: either a policy
 * comes out, which a proxy takes and which is its own canonical form, or nothing does and it was
 * said why; what is said holds nothing that a terminal obeys; the same input gives the same output.
 * The first byte chooses options. A reader's text is taken or not; written again it is its own and
 * says the same.
 */
#include <postern/policy_convert.h>
#include <postern/policy_source.h>
#include <postern/policy_tools.h>

#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool convert(const uint8_t *data, size_t size, struct buf *out)
{
    uint16_t ports[] = {80, 9000};
    uint8_t options = size > 0 ? data[0] : 0;
    struct policy_convert_options o = {
        .trust_domain = (options & 1) != 0 ? "a.b" : NULL,
        .tcp_ports_known = (options & 2) != 0,
        .tcp_ports = {ports, 2},
        .no_implied_allow = (options & 4) != 0,
        .ignore_egress = (options & 8) != 0,
    };
    struct policy_convert *c = policy_convert_new(&o);
    struct err err = ERR_INIT;
    policy_convert_add(c, "f", (struct str){(const char *)data, size});
    bool ok = policy_converted_print(c, out, &err) == 0;
    assert(ok == (err.code == ERR_NONE));
    assert(!ok || conf_diag_count(policy_convert_errors(c)) == 0);
    struct buf said = BUF_INIT(1 << 20);
    assert(conf_diag_print(policy_convert_errors(c), &said));
    assert(conf_diag_print(policy_convert_doubts(c), &said));
    for (size_t i = 0; i < buf_len(&said); i++) {
        uint8_t ch = buf_head(&said)[i];
        assert(ch == '\n' || (ch >= 0x20 && ch != 0x7f));
    }
    buf_reset(&said);
    policy_convert_free(c);
    return ok;
}

/* Comments alone are what becomes of modes. */
static void take(const struct buf *out)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf again = BUF_INIT(8 << 20);
    struct str text = buf_str(out);
    const char *kind = memmem(text.p, text.n, "\nkind: Policy\n", 14);
    if (kind != NULL) {
        assert(conf_parse_policy("p", text.p, text.n, diag, &conf) == 0);
        assert(policy_fmt("p", text, &again, NULL) == 0 && str_eq(buf_str(&again), text));
    }
    buf_reset(&again);
    conf_policy_free(conf);
    conf_diag_free(diag);
}

static bool written(const struct policy_source *s, struct buf *out)
{
    buf_reset(out);
    return policy_source_write(s, out);
}

static void read_reader(struct str text)
{
    struct policy_source s, again;
    struct buf first = BUF_INIT(1 << 20);
    struct buf second = BUF_INIT(1 << 20);
    if (!policy_source_read(text, &s)) {
        return;
    }
    if (written(&s, &first)) {
        assert(policy_source_read(buf_str(&first), &again));
        assert(written(&again, &second) && str_eq(buf_str(&first), buf_str(&second)));
        policy_source_deinit(&again);
    }
    policy_source_deinit(&s);
    buf_reset(&first);
    buf_reset(&second);
}

/* As a proxy reads it, of whatever it is: it is taken whole, or there is an error. */
static void read_in_place(struct str text)
{
    static const char reader[] = "strict own trust_domain=a.b own_namespace=n default_namespace=n "
                                 "labels label=app=web tcp_ports=80 plain_ports=81";
    struct policy_source s;
    struct conf_diag *errors = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    struct conf_policy *conf = NULL;
    assert(policy_source_read(STR_LIT(reader), &s));
    int rc = policy_source_parse(&s, "/f", text, errors, doubts, &conf);
    assert((rc == 0) == (conf_diag_count(errors) == 0) && (rc == 0) == (conf != NULL));
    unsigned line = 0;
    for (size_t i = 0; conf_policy_is_foreign(text) && rc == 0 && i < conf->n_rules; i++) {
        assert(conf->rules[i].line >= line && conf->rules[i].reason != NULL);
        line = conf->rules[i].line;
    }
    conf_policy_free(conf);
    conf_diag_free(errors);
    conf_diag_free(doubts);
    policy_source_deinit(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_reader((struct str){(const char *)data, size});
    read_in_place((struct str){(const char *)data, size});
    struct buf out = BUF_INIT(8 << 20);
    struct buf again = BUF_INIT(8 << 20);
    bool ok = convert(data, size, &out);
    assert(ok == convert(data, size, &again) && str_eq(buf_str(&out), buf_str(&again)));
    assert(ok || buf_len(&out) == 0);
    if (ok) {
        take(&out);
    }
    buf_reset(&out);
    buf_reset(&again);
    return 0;
}
